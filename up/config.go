package up

import (
	"bytes"
	"fmt"
	"net/url"

	"go.yaml.in/yaml/v3"
)

// notificationsPath is where Alertmanager notifies the terminal.
const notificationsPath = "/notifications"

// The scalar settings of the generated files: a short scrape interval and
// quick grouping, since the system is there to be watched.
const (
	scrapeInterval     = "5s"
	sendDeadline       = "1s"
	evaluationInterval = "15s"
	backfillLimit      = "1h"
)

type evaluatorFile struct {
	Global    evaluatorGlobal     `yaml:"global"`
	RuleFiles []string            `yaml:"rule_files"`
	Clusters  []map[string]string `yaml:"clusters"`
	Backends  []backendFile       `yaml:"backends"`
	Alerting  alertingFile        `yaml:"alerting"`

	Collectors collectorsFile `yaml:"collectors"`
}

type collectorsFile struct {
	Addresses []string `yaml:"addresses"`
}

type evaluatorGlobal struct {
	EvaluationInterval string `yaml:"evaluation_interval"`
	BackfillLimit      string `yaml:"backfill_limit"`
	ExternalURL        string `yaml:"external_url"`
}

type backendFile struct {
	Name            string            `yaml:"name"`
	PartitionLabels map[string]string `yaml:"partition_labels,omitempty"`
	Virtual         bool              `yaml:"virtual,omitempty"`
	URL             string            `yaml:"url"`
	GRPC            *grpcFile         `yaml:"grpc,omitempty"`
	HTTPClient      *httpClientFile   `yaml:"http_client_config,omitempty"`
}

type httpClientFile struct {
	BasicAuth *basicAuthFile `yaml:"basic_auth"`
}

type grpcFile struct {
	Address string  `yaml:"address"`
	TLS     tlsFile `yaml:"tls"`
}

type tlsFile struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
}

type alertingFile struct {
	Alertmanagers []alertmanagerFile `yaml:"alertmanagers"`
}

type alertmanagerFile struct {
	Scheme        string         `yaml:"scheme,omitempty"`
	PathPrefix    string         `yaml:"path_prefix,omitempty"`
	BasicAuth     *basicAuthFile `yaml:"basic_auth,omitempty"`
	StaticConfigs []staticFile   `yaml:"static_configs"`
}

type basicAuthFile struct {
	Username string `yaml:"username"`
	Password string `yaml:"password"`
}

type staticFile struct {
	Targets []string          `yaml:"targets"`
	Labels  map[string]string `yaml:"labels,omitempty"`
}

type collectorFile struct {
	Global        collectorGlobal   `yaml:"global"`
	ScrapeConfigs []scrapeFile      `yaml:"scrape_configs"`
	RemoteWrite   []remoteWriteFile `yaml:"remote_write"`
}

type collectorGlobal struct {
	ScrapeInterval string            `yaml:"scrape_interval"`
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"`
}

type scrapeFile struct {
	JobName       string       `yaml:"job_name"`
	StaticConfigs []staticFile `yaml:"static_configs"`
}

type remoteWriteFile struct {
	URL         string            `yaml:"url"`
	BasicAuth   *basicAuthFile    `yaml:"basic_auth,omitempty"`
	QueueConfig map[string]string `yaml:"queue_config"`
}

// configFiles renders the configuration of all processes by file name.
func (l layout) configFiles(d dirs) (map[string][]byte, error) {
	files := map[string]any{"evaluator.yml": l.evaluatorFile(d)}
	for _, a := range l.agents() {
		files[a.name+".yml"] = l.collectorFile(a.cluster)
	}
	if l.embeddedAlertmanager() {
		files["alertmanager.yml"] = l.alertmanagerFile()
	}
	rendered := make(map[string][]byte, len(files))
	for name, f := range files {
		var b bytes.Buffer
		enc := yaml.NewEncoder(&b)
		enc.SetIndent(2)
		if err := enc.Encode(f); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		rendered[name] = b.Bytes()
	}
	return rendered, nil
}

func (l layout) evaluatorFile(d dirs) evaluatorFile {
	f := evaluatorFile{
		Global: evaluatorGlobal{
			EvaluationInterval: evaluationInterval, BackfillLimit: backfillLimit, ExternalURL: l.home(),
		},
		RuleFiles: l.rules,
		Backends:  l.backendFiles(d),
		Alerting:  alertingFile{Alertmanagers: l.alertmanagerFiles()},
	}
	if len(f.RuleFiles) == 0 {
		f.RuleFiles = []string{d.rules()}
	}
	for _, c := range l.clusters {
		f.Clusters = append(f.Clusters, partition(c))
	}
	for _, a := range l.agents() {
		f.Collectors.Addresses = append(f.Collectors.Addresses, a.http)
	}
	return f
}

func (l layout) backendFiles(d dirs) []backendFile {
	if l.single != nil {
		return []backendFile{existingBackend("default", l.single)}
	}
	var all []backendFile
	if l.named != nil {
		for _, c := range l.clusters {
			b := existingBackend(c, l.named[c])
			b.PartitionLabels, b.Virtual = partition(c), true
			all = append(all, b)
		}
	}
	for _, s := range l.stores() {
		all = append(all, backendFile{
			Name: s.name, PartitionLabels: partition(s.cluster), URL: "http://" + s.http,
			GRPC: &grpcFile{Address: s.grpc, TLS: tlsFile{CertFile: d.cert(), KeyFile: d.key(), CAFile: d.ca()}},
		})
	}
	return all
}

// existingBackend is a server of the user's.
func existingBackend(name string, u *url.URL) backendFile {
	b := backendFile{Name: name, URL: withoutUser(u)}
	if auth := basicAuth(u); auth != nil {
		b.HTTPClient = &httpClientFile{BasicAuth: auth}
	}
	return b
}

// withoutUser returns a URL that may be logged; basicAuth has the rest.
func withoutUser(u *url.URL) string {
	bare := *u
	bare.User = nil
	return bare.String()
}

// partition returns the partition labels of a cluster's backend; those of the
// global backend say that the label is absent.
func partition(cluster string) map[string]string {
	return map[string]string{clusterLabel: cluster}
}

func (l layout) alertmanagerFiles() []alertmanagerFile {
	if l.embeddedAlertmanager() {
		return []alertmanagerFile{{StaticConfigs: []staticFile{{Targets: []string{l.alertmanager()}}}}}
	}
	var all []alertmanagerFile
	for _, u := range l.alertmanagers {
		all = append(all, alertmanagerFile{
			Scheme: u.Scheme, PathPrefix: u.Path, BasicAuth: basicAuth(u),
			StaticConfigs: []staticFile{{Targets: []string{u.Host}}},
		})
	}
	return all
}

func basicAuth(u *url.URL) *basicAuthFile {
	if u.User == nil {
		return nil
	}
	password, _ := u.User.Password()
	return &basicAuthFile{Username: u.User.Username(), Password: password}
}

// collectorFile leaves the cluster's label out where the backend is a plain
// server of the user's: its series lack the label, and those that are added
// must be like the others.
func (l layout) collectorFile(cluster string) collectorFile {
	target := l.backendURL(cluster)
	f := collectorFile{
		Global: collectorGlobal{ScrapeInterval: scrapeInterval},
		RemoteWrite: []remoteWriteFile{{
			URL:         withoutUser(target.JoinPath("api/v1/write")),
			BasicAuth:   basicAuth(target),
			QueueConfig: map[string]string{"batch_send_deadline": sendDeadline},
		}},
	}
	if l.named == nil {
		f.Global.ExternalLabels = partition(cluster)
	}
	jobs := map[string]int{}
	for _, t := range l.targets(cluster) {
		i, ok := jobs[t.job]
		if !ok {
			i = len(f.ScrapeConfigs)
			jobs[t.job] = i
			f.ScrapeConfigs = append(f.ScrapeConfigs, scrapeFile{JobName: t.job})
		}
		static := staticFile{Targets: []string{t.address}}
		if t.instance != "" {
			static.Labels = map[string]string{"instance": t.instance}
		}
		f.ScrapeConfigs[i].StaticConfigs = append(f.ScrapeConfigs[i].StaticConfigs, static)
	}
	return f
}

type alertmanagerConfigFile struct {
	Route        routeFile      `yaml:"route"`
	Receivers    []receiverFile `yaml:"receivers"`
	InhibitRules []inhibitFile  `yaml:"inhibit_rules"`
}

type routeFile struct {
	Receiver       string   `yaml:"receiver"`
	GroupBy        []string `yaml:"group_by"`
	GroupWait      string   `yaml:"group_wait"`
	GroupInterval  string   `yaml:"group_interval"`
	RepeatInterval string   `yaml:"repeat_interval"`
}

type receiverFile struct {
	Name           string        `yaml:"name"`
	WebhookConfigs []webhookFile `yaml:"webhook_configs"`
}

type webhookFile struct {
	URL          string `yaml:"url"`
	SendResolved bool   `yaml:"send_resolved"`
}

type inhibitFile struct {
	SourceMatchers []string `yaml:"source_matchers"`
	TargetMatchers []string `yaml:"target_matchers"`
	Equal          []string `yaml:"equal"`
}

func (l layout) alertmanagerFile() alertmanagerConfigFile {
	return alertmanagerConfigFile{
		Route: routeFile{
			Receiver: "terminal", GroupBy: []string{"alertname", clusterLabel},
			GroupWait: "5s", GroupInterval: "10s", RepeatInterval: "4h",
		},
		Receivers: []receiverFile{{
			Name:           "terminal",
			WebhookConfigs: []webhookFile{{URL: "http://" + l.webhook() + notificationsPath, SendResolved: true}},
		}},
		InhibitRules: []inhibitFile{{
			SourceMatchers: []string{`severity="critical"`},
			TargetMatchers: []string{`severity="warning"`},
			Equal:          []string{"alertname", clusterLabel},
		}},
	}
}
