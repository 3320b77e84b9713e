package up

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	// DefaultPortBase is the first of the ports that the system uses.
	DefaultPortBase = 19090
	// DefaultMembers is how many rule evaluators there are.
	DefaultMembers = 3
	// maxMembers and maxClusters follow from the ten ports that each kind of
	// process has; one backend is the global one.
	maxMembers  = 10
	maxClusters = 9
	// portSpan is how many ports from the base on may be used.
	portSpan = 70
	// clusterLabel is the partition label.
	clusterLabel = "cluster"
	// globalBackend holds the series that belong to no cluster.
	globalBackend = "global"
)

// Options are what a user may choose. Every URL may carry a user name and a
// password.
type Options struct {
	// DataDir holds everything that is kept; empty means a directory of the
	// user's cache. With Ephemeral it must be empty: a temporary directory is
	// used and removed at the end.
	DataDir   string
	Ephemeral bool
	// PortBase is the first of 70 ports, of which those in use must be free.
	PortBase int
	// Members is the number of rule evaluators, 1 to 10.
	Members int
	// Rules are rule files or directories; none means the built-in set.
	Rules []string
	// Backends are existing servers that speak Prometheus' API and take remote
	// write, to be used in place of the embedded stores: one "URL" for
	// everything or a "NAME=URL" for each cluster.
	Backends []string
	// Alertmanagers are URLs of existing ones, in place of the embedded one.
	Alertmanagers []string
	// Scrapes are additional targets, "JOB=host:port" or
	// "CLUSTER/JOB=host:port".
	Scrapes []string
	// LogLevel and LogFormat apply to all processes.
	LogLevel  string
	LogFormat string
}

// request is Options parsed and checked.
type request struct {
	portBase int
	members  int
	clusters []string
	// single is the one backend for everything, named those of the clusters.
	// Without both, stores are embedded.
	single        *url.URL
	named         map[string]*url.URL
	alertmanagers []*url.URL
	scrapes       []scrapeTarget
	// rules are absolute paths.
	rules     []string
	logLevel  string
	logFormat string
}

// scrapeTarget is one target of a collector.
type scrapeTarget struct{ cluster, job, instance, address string }

var (
	clusterName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?$`)
	ownJobs     = []string{"alertmanager", "backend", "collector", "node", "rule-evaluator"}
)

// Validate reports all faults of the options at once.
func (o Options) Validate() error {
	_, err := o.parse()
	return err
}

// parse reports all faults of the options at once.
func (o Options) parse() (request, error) {
	r := request{
		portBase: o.PortBase, members: o.Members, clusters: []string{"east", "west"},
		logLevel: o.LogLevel, logFormat: o.LogFormat,
	}
	errs := []error{o.checkNumbers()}
	if o.Ephemeral && o.DataDir != "" {
		errs = append(errs, errors.New("--data-dir and --ephemeral exclude each other"))
	}
	errs = append(errs, r.parseBackends(o.Backends), r.parseAlertmanagers(o.Alertmanagers))
	for _, s := range o.Scrapes {
		target, err := parseScrape(s, r.clusters)
		errs = append(errs, err)
		r.scrapes = append(r.scrapes, target)
	}
	for _, p := range o.Rules {
		abs, err := readableRules(p)
		errs = append(errs, err)
		r.rules = append(r.rules, abs)
	}
	return r, errors.Join(errs...)
}

func (o Options) checkNumbers() error {
	var errs []error
	if o.PortBase < 1024 || o.PortBase > 65535-portSpan {
		errs = append(errs, fmt.Errorf("--port-base %d: must be from 1024 to %d, since %d ports from it on are used",
			o.PortBase, 65535-portSpan, portSpan))
	}
	if o.Members < 1 || o.Members > maxMembers {
		errs = append(errs, fmt.Errorf("--members %d: must be from 1 to %d", o.Members, maxMembers))
	}
	return errors.Join(errs...)
}

func (r *request) parseBackends(flags []string) error {
	var errs []error
	named := map[string]*url.URL{}
	var names []string
	for _, flag := range flags {
		name, u, err := parseBackend(flag)
		switch {
		case err != nil:
			errs = append(errs, err)
		case name == "" && len(flags) > 1:
			errs = append(errs, fmt.Errorf("--backend %s: several backends need a name each, as in --backend east=%s",
				u.Redacted(), u.Redacted()))
		case name == "":
			r.single = u
		case named[name] != nil:
			errs = append(errs, fmt.Errorf("--backend %s=...: two backends have this name", name))
		default:
			named[name] = u
			names = append(names, name)
		}
	}
	if len(names) > maxClusters {
		errs = append(errs, fmt.Errorf("%d backends: at most %d are possible on one machine", len(names), maxClusters))
	}
	if len(names) > 0 {
		r.clusters, r.named = names, named
	}
	return errors.Join(errs...)
}

// parseBackend splits "NAME=URL" or "URL", whose query may contain "=".
func parseBackend(flag string) (string, *url.URL, error) {
	name, rest := "", flag
	if before, after, ok := strings.Cut(flag, "="); ok && !strings.Contains(before, "://") {
		name, rest = before, after
		if !clusterName.MatchString(name) || name == globalBackend {
			return "", nil, fmt.Errorf("--backend %q: a name consists of letters, digits, - and _, and is not %q", name, globalBackend)
		}
	}
	u, err := parseURL("--backend", rest)
	return name, u, err
}

func (r *request) parseAlertmanagers(flags []string) error {
	var errs []error
	for _, flag := range flags {
		u, err := parseURL("--alertmanager", flag)
		errs = append(errs, err)
		r.alertmanagers = append(r.alertmanagers, u)
	}
	return errors.Join(errs...)
}

// parseURL redacts a password in its errors, and does not repeat at all what
// may contain one and can't be parsed.
func parseURL(flag, s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil && strings.Contains(s, "@") {
		return nil, fmt.Errorf("%s: not a valid URL; expected one such as http://127.0.0.1:9090", flag)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q: not a valid URL; expected one such as http://127.0.0.1:9090", flag, s)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%s %q: must be a URL such as http://127.0.0.1:9090", flag, u.Redacted())
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s %q: must have neither a query nor a fragment", flag, u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

func parseScrape(flag string, clusters []string) (scrapeTarget, error) {
	wrong := func(why string) (scrapeTarget, error) {
		return scrapeTarget{}, fmt.Errorf("--scrape %q: %s; expected JOB=host:port or CLUSTER/JOB=host:port", flag, why)
	}
	name, address, ok := strings.Cut(flag, "=")
	if !ok {
		return wrong("no = in it")
	}
	t := scrapeTarget{cluster: clusters[0], job: name, address: address}
	if cluster, job, ok := strings.Cut(name, "/"); ok {
		t.cluster, t.job = cluster, job
	}
	if !slices.Contains(clusters, t.cluster) {
		return wrong(fmt.Sprintf("no cluster %q, there are %s", t.cluster, strings.Join(clusters, ", ")))
	}
	if t.job == "" || slices.Contains(ownJobs, t.job) {
		return wrong(fmt.Sprintf("the job name must not be empty or one of %s", strings.Join(ownJobs, ", ")))
	}
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return wrong(fmt.Sprintf("%q is not host:port", address))
	}
	return t, nil
}

// readableRules returns the absolute path of a rule file or directory.
func readableRules(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("--rules %q: %w", path, err)
	}
	f, err := os.Open(abs)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return "", fmt.Errorf("--rules %q: %w; expected a rule file or a directory of them", path, err)
	}
	return abs, f.Close()
}
