package up

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/model"

	"github.com/tocsin-rules/tocsin/up/screen"
)

const (
	// maxWebhookBytes bounds a notification, keptNotifications the memory of
	// them.
	maxWebhookBytes   = 4 << 20
	keptNotifications = 50
)

// inbox receives Alertmanager's notifications. It is safe for concurrent use.
type inbox struct {
	mu     sync.Mutex
	latest []screen.Notification
	count  int
}

// ServeHTTP takes what Alertmanager's webhook integration sends.
func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var data template.Data
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxWebhookBytes)).Decode(&data); err != nil {
		http.Error(w, "decode notification: "+err.Error(), http.StatusBadRequest)
		return
	}
	i.add(data, time.Now())
}

func (i *inbox) add(data template.Data, at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range data.Alerts {
		i.latest = append(i.latest, notification(a, at))
	}
	i.latest = slices.Clone(i.latest[max(0, len(i.latest)-keptNotifications):])
	i.count += len(data.Alerts)
}

func notification(a template.Alert, at time.Time) screen.Notification {
	n := screen.Notification{
		At: at, Name: a.Labels[model.AlertNameLabel], Resolved: a.Status == string(model.AlertResolved),
	}
	for _, pair := range a.Labels.SortedPairs() {
		if pair.Name != model.AlertNameLabel {
			n.Labels = append(n.Labels, pair.Name+"="+pair.Value)
		}
	}
	return n
}

// snapshot returns the latest notifications and how many there were in all.
func (i *inbox) snapshot() ([]screen.Notification, int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.latest, i.count
}
