package collector

import (
	"os"

	"github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v2"
)

// gcPercent is low: most of what a collector has in memory stays, so that
// collecting garbage often costs little.
const gcPercent = 25

// ownDefaults replaces defaults of Prometheus where the configuration says
// nothing. The version of the remote write protocol is left open, to be found
// out by asking.
func ownDefaults(conf *config.Config, content []byte) error {
	var given struct {
		Runtime     config.RuntimeConfig `yaml:"runtime"`
		RemoteWrite []struct {
			Version string `yaml:"protobuf_message"`
		} `yaml:"remote_write"`
	}
	if err := yaml.Unmarshal(content, &given); err != nil {
		return err
	}
	for i, w := range given.RemoteWrite {
		if w.Version == "" && i < len(conf.RemoteWriteConfigs) {
			conf.RemoteWriteConfigs[i].ProtobufMessage = ""
		}
	}
	if _, set := os.LookupEnv("GOGC"); !set && given.Runtime.GoGC == 0 {
		conf.Runtime.GoGC = gcPercent
	}
	return nil
}
