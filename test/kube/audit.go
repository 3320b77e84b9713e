package kube

import (
	"bufio"
	"encoding/json"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
)

// auditPolicy notes what service accounts ask for.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ['system:serviceaccounts']
- level: None
`

// Request is what a service account asked the API server for.
type Request struct {
	Verb, Namespace, Resource    string
	FieldSelector, LabelSelector string
	// Code is the HTTP status of the answer.
	Code int
}

type auditEvent struct {
	AuditID    string
	Stage      string
	RequestURI string
	Verb       string
	User       struct{ Username string }
	ObjectRef  struct{ Resource, Namespace string }

	ResponseStatus struct{ Code int }
}

func (e auditEvent) request() Request {
	r := Request{Verb: e.Verb, Namespace: e.ObjectRef.Namespace, Resource: e.ObjectRef.Resource, Code: e.ResponseStatus.Code}
	if u, err := url.Parse(e.RequestURI); err == nil {
		r.FieldSelector, r.LabelSelector = u.Query().Get("fieldSelector"), u.Query().Get("labelSelector")
	}
	return r
}

// Requests are all that a service account has asked for, in the order of the
// first bytes of the answers.
func (c *Cluster) Requests(namespace, account string) []Request {
	all, _ := c.audit(namespace, account)
	return all
}

// OpenWatches are the watches of a service account that have not ended.
func (c *Cluster) OpenWatches(namespace, account string) []Request {
	_, open := c.audit(namespace, account)
	return slices.DeleteFunc(open, func(r Request) bool { return r.Verb != "watch" })
}

// audit reads the audit log. What was open when an API server was killed counts
// as open still.
func (c *Cluster) audit(namespace, account string) (all, open []Request) {
	c.t.Helper()
	f, err := os.Open(c.path("audit.log"))
	require.NoError(c.t, err)
	defer f.Close()
	var order []string
	last := map[string]auditEvent{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditEvent
		// The last line may be half written.
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.User.Username != strings.Join([]string{"system", "serviceaccount", namespace, account}, ":") {
			continue
		}
		if _, known := last[e.AuditID]; !known {
			order = append(order, e.AuditID)
		}
		last[e.AuditID] = e
	}
	require.NoError(c.t, lines.Err())
	for _, id := range order {
		e := last[id]
		all = append(all, e.request())
		if e.Stage == "ResponseStarted" {
			open = append(open, e.request())
		}
	}
	return all, open
}
