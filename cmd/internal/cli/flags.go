package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/alerting/alertmanager"
	backend "github.com/tocsin-rules/tocsin/backend/app"
	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/proto/transport"
	ruler "github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/up"
)

// addUp registers "tocsin up".
func addUp(p *command.Program) {
	cmd := p.App.Command("up", "Run the whole system on this machine, each process on its own.")
	var o up.Options
	cmd.Flag("data-dir", "Directory for data, configuration and logs. Default: tocsin in the user's cache directory.").StringVar(&o.DataDir)
	cmd.Flag("ephemeral", "Use a temporary data directory and remove it at the end.").BoolVar(&o.Ephemeral)
	cmd.Flag("port-base", "First of the ports that are used, all on loopback.").
		Default(fmt.Sprint(up.DefaultPortBase)).IntVar(&o.PortBase)
	cmd.Flag("members", "Number of rule evaluators.").Default(fmt.Sprint(up.DefaultMembers)).IntVar(&o.Members)
	cmd.Flag("rules", "Rule file or directory (repeatable). Default: the built-in set, which is written to rules in the data directory at every start.").
		PlaceHolder("PATH").StringsVar(&o.Rules)
	cmd.Flag("backend", "Existing server to use in place of the embedded stores: URL for everything, or NAME=URL for each cluster (repeatable).").
		PlaceHolder("[NAME=]URL").StringsVar(&o.Backends)
	cmd.Flag("alertmanager", "Existing Alertmanager to use in place of the embedded one (repeatable).").
		PlaceHolder("URL").StringsVar(&o.Alertmanagers)
	cmd.Flag("scrape", "Additional target (repeatable), in the first cluster if none is given.").
		PlaceHolder("[CLUSTER/]JOB=HOST:PORT").StringsVar(&o.Scrapes)
	cmd.Validate(func(*kingpin.CmdClause) error { return o.Validate() })
	p.Add("up", func(ctx context.Context, _ *slog.Logger) error {
		o.LogLevel, o.LogFormat = p.Log.Level.String(), p.Log.Format.String()
		return up.Run(ctx, o, p.Streams.Stdout)
	})
}

func backendFlags(f command.Flagger) command.Process {
	var o backend.Options
	retention := model.Duration(15 * 24 * time.Hour)
	f.Flag("storage.path", "Directory of the data.").Default("data/backend").StringVar(&o.StoragePath)
	external := f.Flag("storage.external-label", "Label that every series here carries (repeatable). It is added where it is missing; series with another value are refused.").
		PlaceHolder("NAME=VALUE").StringMap()
	f.Flag("storage.absent-label", "Label that no series here carries (repeatable). Series with it are refused.").
		PlaceHolder("NAME").StringsVar(&o.AbsentLabels)
	f.Flag("storage.retention.time", "How long samples are kept.").Default(retention.String()).SetValue(&retention)
	window := model.Duration(2 * time.Hour)
	f.Flag("storage.out-of-order-window", "How late a sample may arrive.").Default(window.String()).SetValue(&window)
	command.WebFlags(f, &o.HTTP, "0.0.0.0:19100")
	grpcFlags(f, &o.GRPCListenAddress, &o.GRPC, "127.0.0.1:19110")
	return func(ctx context.Context, logger *slog.Logger) error {
		o.ExternalLabels = labels.FromMap(*external)
		o.Retention, o.OutOfOrderWindow = time.Duration(retention), time.Duration(window)
		return backend.Run(ctx, o, logger)
	}
}

func alertmanagerFlags(f command.Flagger) command.Process {
	var o alertmanager.Options
	retention := model.Duration(120 * time.Hour)
	f.Flag("config.file", "Configuration in Alertmanager's format.").Default("alertmanager.yml").StringVar(&o.ConfigFile)
	f.Flag("storage.path", "Directory of silences and of the notification log.").Default("data/alertmanager").StringVar(&o.StoragePath)
	f.Flag("data.retention", "How long silences and the notification log are kept.").Default(retention.String()).SetValue(&retention)
	f.Flag("web.external-url", "URL under which it is reachable, for links in notifications.").StringVar(&o.ExternalURL)
	command.WebFlags(f, &o.HTTP, "0.0.0.0:19140")
	return func(ctx context.Context, logger *slog.Logger) error {
		o.Retention = time.Duration(retention)
		return alertmanager.Run(ctx, o, logger)
	}
}

func ruleEvaluatorFlags(f command.Flagger) command.Process {
	var o ruler.Options
	name, err := os.Hostname()
	if err != nil {
		name = "member"
	}
	f.Flag("config.file", "Configuration: rule files, clusters, backends, Alertmanagers.").Default("evaluator.yml").StringVar(&o.ConfigFile)
	f.Flag("cluster.name", "Name of this member, unique in the cluster.").Default(name).StringVar(&o.Name)
	f.Flag("cluster.zone", "Failure domain of this member.").StringVar(&o.Zone)
	f.Flag("cluster.listen-address", "Address for gossip.").Default("127.0.0.1:19130").StringVar(&o.GossipAddress)
	f.Flag("cluster.peer", "Address of another member; a DNS name means all addresses behind it (repeatable).").
		PlaceHolder("HOST:PORT").StringsVar(&o.Peers)
	f.Flag("cluster.peer-file", "File with addresses of other members, one in a line; read whenever members are missing.").
		StringVar(&o.PeersFile)
	f.Flag("cluster.advertise-address", "IP address and port that other members reach this one's gossip at, as that of its pod; port 0 is the one listened on. "+
		"HTTP and gRPC are advertised at the same IP where they listen on all. Default: the address listened on, or a private one of this machine.").
		PlaceHolder("IP:PORT").StringVar(&o.AdvertiseAddress)
	f.Flag("cluster.key-file", "File with the keys that encrypt gossip, base64, one in a line; the first one encrypts.").
		StringVar(&o.GossipKeyFile)
	f.Flag("stop-timeout", "How long handing over to other members may take at the end.").Default("20s").DurationVar(&o.StopTimeout)
	command.WebFlags(f, &o.HTTP, "0.0.0.0:19090")
	grpcFlags(f, &o.GRPCListenAddress, &o.GRPC, "127.0.0.1:19150")
	f.Flag("grpc.tls-server-name", "Name that the certificates of other members have to be for. Default: the address at which a member is reached, which pods have no certificates for.").
		PlaceHolder("NAME").StringVar(&o.GRPC.ServerName)
	return func(ctx context.Context, logger *slog.Logger) error { return ruler.Run(ctx, o, logger) }
}

func grpcFlags(f command.Flagger, listen *string, c *transport.Config, address string) {
	f.Flag("grpc.listen-address", "Address for gRPC; other than on loopback it needs TLS.").Default(address).StringVar(listen)
	f.Flag("grpc.tls-cert-file", "Certificate for gRPC, as server and as client.").StringVar(&c.CertFile)
	f.Flag("grpc.tls-key-file", "Key of the certificate.").StringVar(&c.KeyFile)
	f.Flag("grpc.tls-ca-file", "Authorities that the other side's certificate must be signed by.").StringVar(&c.CAFile)
}
