package source

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

func TestEveryKeyOfAConfigMapIsAFile(t *testing.T) {
	t.Parallel()
	files := configMapFiles(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "rules"},
		Data:       map[string]string{"b.yml": "b", "a": "a", "plain.gz": "not compressed"},
		BinaryData: map[string][]byte{"c.yml.gz": zipped(t, "c"), "d.yml": []byte("d"), "e.yml": zipped(t, "e"), "f.yml": []byte(gzipMagic), "bomb.yml.gz": zipped(t, string(make([]byte, 1<<20)))},
	})
	got := map[string]string{}
	for _, f := range files {
		content, err := f.content(100)
		if err != nil {
			content = []byte(err.Error())
		}
		got[f.Path+" "+f.Name] = string(content)
	}
	require.Equal(t, map[string]string{
		"configmap:shop/rules/a shop/rules/a":                  "a",
		"configmap:shop/rules/b.yml shop/rules/b.yml":          "b",
		"configmap:shop/rules/c.yml.gz shop/rules/c.yml":       "c",
		"configmap:shop/rules/d.yml shop/rules/d.yml":          "d",
		"configmap:shop/rules/e.yml shop/rules/e.yml":          "e",
		"configmap:shop/rules/f.yml shop/rules/f.yml":          "shop/rules/f.yml is not compressed by gzip: unexpected EOF",
		"configmap:shop/rules/plain.gz shop/rules/plain":       "not compressed",
		"configmap:shop/rules/bomb.yml.gz shop/rules/bomb.yml": "rule file shop/rules/bomb.yml.gz has more than max-file-bytes (100)",
	}, got)
}

func TestConfigMapsNeedASelector(t *testing.T) {
	t.Parallel()
	require.NoError(t, ConfigMaps{LabelSelector: "rules in (a, b),!draft"}.Validate())
	require.EqualError(t, ConfigMaps{Namespace: "x"}.Validate(), "rule ConfigMaps need a label_selector")
	require.ErrorContains(t, ConfigMaps{LabelSelector: "a in"}.Validate(), `label_selector "a in": `)
}
