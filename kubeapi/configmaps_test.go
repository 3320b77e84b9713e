package kubeapi

import (
	"bytes"
	"compress/gzip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func zipped(t *testing.T, text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestValuesAreDecompressedByWhatTheyBeginWith(t *testing.T) {
	t.Parallel()
	values := valuesOf(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "rules"},
		Data:       map[string]string{"b.yml": "b", "a": "a", "plain.gz": "not compressed", "empty": ""},
		BinaryData: map[string][]byte{
			"c.yml.gz": zipped(t, "c"), "d.yml": []byte("d"), "e.yml": zipped(t, "e"),
			"bomb": zipped(t, string(make([]byte, 1<<20))), "cut": zipped(t, "text")[:12], "broken": {0x1f, 0x8b, 0},
		},
	})
	got := map[string]string{}
	for _, v := range values {
		content, err := v.Read(100)
		if err != nil {
			content = []byte(err.Error())
		}
		got[v.String()] = string(content)
	}
	require.Equal(t, map[string]string{
		"shop/rules/a":        "a",
		"shop/rules/b.yml":    "b",
		"shop/rules/empty":    "",
		"shop/rules/plain.gz": "not compressed",
		"shop/rules/c.yml.gz": "c",
		"shop/rules/d.yml":    "d",
		"shop/rules/e.yml":    "e",
		"shop/rules/bomb":     "shop/rules/bomb has more bytes than allowed (100)",
		"shop/rules/cut":      "shop/rules/cut: unexpected EOF",
		"shop/rules/broken":   "shop/rules/broken is not compressed by gzip: unexpected EOF",
	}, got)
}
