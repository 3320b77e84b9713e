// Package alerting delivers notifications to Alertmanagers, and expands the
// templates of alerting rules with Prometheus' functions.
//
// Alertmanagers are configured and discovered as in Prometheus, and each of them
// gets every alert. Each has a queue and a goroutine of its own, so that one
// that is slow or away delays no other. A queue holds the newest notification of
// each alert, for that is all an Alertmanager wants to know; one that can't be
// delivered is tried again until it is no longer true, and what is dropped is
// counted. Notifications that come before any Alertmanager is found wait for the
// first.
//
//	Send -> set (one per entry of alerting.alertmanagers)
//	          +- Alertmanager: queue -> batch -> relabel -> POST /api/v2/alerts
//	          +- Alertmanager: queue -> ...
//	          +- backlog, while there is no Alertmanager
//
// The package does not decide which alerts there are and when they are due; that
// is alerting/alert. It never drops a notification because evaluation or storage
// fails: it knows neither.
//
// Discovery mechanisms are those that are linked into the program; this package
// links static, file, DNS and HTTP discovery.
//
// A Sender is safe for concurrent use.
package alerting
