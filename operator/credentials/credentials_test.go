package credentials

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/proto/transport"
)

// TestMembersTakeWhatIsMade covers the format of the files; test/kube shows
// how the Secret comes to be, and test/e2e that members find each other by it.
func TestMembersTakeWhatIsMade(t *testing.T) {
	t.Parallel()
	data, err := generate(time.Now())
	require.NoError(t, err)
	require.Len(t, data, 4)
	dir := t.TempDir()
	for key, content := range data {
		require.NoError(t, os.WriteFile(filepath.Join(dir, key), content, 0o600))
	}
	require.NoError(t, transport.Config{
		CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), CAFile: filepath.Join(dir, "ca.crt"), ServerName: ServerName,
	}.Validate("10.0.0.1:19150"))
	require.Regexp(t, `^[A-Za-z0-9+/]{43}=\n$`, string(data["gossip.key"]))
}
