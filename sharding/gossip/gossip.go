// Package gossip tells a member which other members there are: it joins the
// cluster, gossips this member's own state and addresses, and gives the
// present view. It is the only importer of memberlist.
//
// It never decides who owns what (sharding) nor moves groups
// (sharding/handoff), and carries no messages between members but its own and
// what groups cost by common consent, which is a part of the view.
// A Cluster is safe for concurrent use; Run owns all its goroutines.
//
// # Names
//
// A process is known to memberlist as NAME/GENERATION, where the generation is
// the time of its start. Hence one that was killed and comes back, at the same
// address or another, is a new node, accepted at once, while its former self
// is still being found dead; the view shows the newest generation of each
// name. Two processes configured with one name see each other, too: the older
// one reports it.
//
// # How soon a dead member is noticed
//
// Each member probes another one every probeInterval P = 0.5 s, all of them in
// turn. An unanswered probe ends after P with a suspicion, which everybody
// hears of. A suspected member that does not refute it is declared dead after
// suspicionMult * max(1, log10 n) * P = 2 s up to 10 members, 4 s for 100; if
// others could confirm the suspicion but haven't, it takes up to twice as long.
//
// With three members, the two that remain probe the dead one at the latest
// after 3P each, so the first suspicion is there after 1.2 s on average and 2 s
// at worst, and the death is known after 3.2 s on average and 4 s at worst.
// With ten members the first probe comes sooner and two confirmations are
// wanted: mostly about the same, but whom to probe is left to chance, and one
// time in some hundreds it takes more than 5 s.
//
// On the other side, a living member is declared dead only if it answers no
// probe, direct, indirect or by TCP, for P, and then doesn't process a packet
// for 2 s more. A Go program on a machine with many times as many runnable
// threads as cores waits tens of milliseconds for its turn, so load alone
// doesn't do it; and a prober that is slow itself notices (its health score)
// and stretches its probes up to awarenessMax times. A member that was declared
// dead wrongly hears of it by the next gossip, and is back within a second.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-rules/tocsin/sharding"
)

// ProtocolVersion is the version of the protocol between members that this
// program speaks; views show it for every member. Version 2 shares groups out by
// what they cost and sends checkpoints as changes of the last ones.
const ProtocolVersion = 2

// The times of failure detection and dissemination. The package documentation
// says what follows from them.
const (
	probeInterval    = 500 * time.Millisecond
	probeTimeout     = 200 * time.Millisecond
	suspicionMult    = 4
	suspicionMaxMult = 2
	awarenessMax     = 4
	gossipInterval   = 100 * time.Millisecond
	// gossipToTheDead keeps on telling a dead member that it is thought dead,
	// so that short partitions heal by themselves.
	gossipToTheDead  = 30 * time.Second
	pushPullInterval = 5 * time.Second
	// retransmitMult: each member passes each piece of news on 8 times, twice
	// memberlist's default. Of ten members, one in 700 news would else miss
	// somebody until the next exchange of everything (pushPullInterval).
	retransmitMult = 8
	streamTimeout  = 2 * time.Second
	publishTimeout = time.Second
	leaveTimeout   = 2 * time.Second
)

// Cluster is this member's connection to the others.
type Cluster struct {
	cfg       Config
	logger    *slog.Logger
	metrics   *metrics
	roster    *roster
	keys      *keys
	transport memberlist.NodeAwareTransport
	list      atomic.Pointer[memberlist.Memberlist]
	publish   chan struct{}
	tellCosts chan struct{}
	// lookup resolves the host of a peer to addresses.
	lookup func(ctx context.Context, host string) ([]string, error)
}

// New returns a member that has not joined yet, in the state joining. It opens
// no port.
func New(cfg Config, logger *slog.Logger, reg prometheus.Registerer) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg:       cfg,
		logger:    logger,
		publish:   make(chan struct{}, 1),
		tellCosts: make(chan struct{}, 1),
		lookup:    net.DefaultResolver.LookupHost,
	}
	c.metrics = newMetrics(reg, c.healthScore)
	c.roster = newRoster(cfg.local(), c.metrics)
	c.keys = &keys{file: cfg.KeyFile, metrics: c.metrics, logger: logger}
	return c, nil
}

// Listen reads the keys and opens the port, so that Addr is known and faults
// are reported before anything else starts. Run has to follow.
func (c *Cluster) Listen() error {
	if err := c.keys.load(); err != nil {
		return err
	}
	host, port, err := splitAddress(c.cfg.BindAddress)
	if err != nil {
		return err
	}
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{host},
		BindPort:  port,
		Logger:    c.libraryLogger(),
	})
	if err != nil {
		return fmt.Errorf("listen for gossip on %q: %w", c.cfg.BindAddress, err)
	}
	c.transport = t
	own, err := c.Addr()
	if err != nil {
		return err
	}
	c.roster.reachableAt(own)
	return nil
}

// Addr is the address, "host:port", that other members reach this one at. It
// is known after Listen.
func (c *Cluster) Addr() (string, error) {
	host, port, err := c.advertised()
	if err != nil {
		return "", err
	}
	ip, port, err := c.transport.FinalAdvertiseAddr(host, port)
	if err != nil {
		return "", fmt.Errorf("find the address to advertise for gossip: %w", err)
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(port)), nil
}

// advertised splits the address to advertise; without a port in it, the bound
// one is meant.
func (c *Cluster) advertised() (host string, port int, err error) {
	if c.cfg.AdvertiseAddress == "" {
		return "", 0, nil
	}
	host, port, err = splitAddress(c.cfg.AdvertiseAddress)
	if err == nil && port == 0 {
		_, port, err = c.transport.FinalAdvertiseAddr("", 0)
	}
	return host, port, err
}

// View returns the cluster as this member sees it. It holds this member
// always, with the state last set.
func (c *Cluster) View() sharding.View { return *c.roster.view.Load() }

// Changes signals that the view has changed since the last signal was taken.
// Signals coalesce; there is one channel, for one reader.
func (c *Cluster) Changes() <-chan struct{} { return c.roster.changes }

// SetState tells this member's state. Its own view has it at once, the others
// hear of it as soon as Run gossips it.
func (c *Cluster) SetState(s sharding.State) {
	c.roster.setState(s)
	c.gossipState()
}

// SetLoad tells the others this member's load, if it has changed by much.
func (c *Cluster) SetLoad(l Load) {
	if c.roster.setLoad(l) {
		c.gossipState()
	}
}

// Loads are those that the members last told, by name. They are for people: what
// groups are shared out by is in the view.
func (c *Cluster) Loads() map[string]Load { return c.roster.loads() }

// gossipState has Run tell the others this member's state.
func (c *Cluster) gossipState() {
	select {
	case c.publish <- struct{}{}:
	default:
	}
}

// Run takes part in the cluster until ctx ends, and then leaves it. It joins
// as soon as any peer can be reached and goes on trying until then; a member
// without reachable peers is a cluster of its own.
func (c *Cluster) Run(ctx context.Context) error {
	conf, err := c.libraryConfig()
	if err != nil {
		return err
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		return fmt.Errorf("start gossip as %q: %w", c.cfg.Name, err)
	}
	c.list.Store(list)
	var wg sync.WaitGroup
	wg.Go(func() { c.keepJoined(ctx, list) })
	wg.Go(func() { c.keys.keepLoaded(ctx) })
	wg.Go(func() { c.keepCostsTold(ctx, list) })
	for ctx.Err() == nil {
		select {
		case <-c.publish:
			if err := list.UpdateNode(publishTimeout); err != nil {
				c.logger.Warn("state not yet gossiped to any member", "err", err)
			}
		case <-ctx.Done():
		}
	}
	wg.Wait()
	return c.leave(list)
}

func (c *Cluster) leave(list *memberlist.Memberlist) error {
	if err := list.Leave(leaveTimeout); err != nil {
		c.logger.Warn("left the cluster without telling anybody", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

func (c *Cluster) healthScore() float64 {
	if list := c.list.Load(); list != nil {
		return float64(list.GetHealthScore())
	}
	return 0
}

func (c *Cluster) libraryLogger() *log.Logger {
	return log.New(&logWriter{logger: c.logger, rejected: c.metrics.rejected}, "", 0)
}

func (c *Cluster) libraryConfig() (*memberlist.Config, error) {
	if c.transport == nil {
		return nil, errors.New("run gossip: Listen comes first")
	}
	host, port, err := c.advertised()
	if err != nil {
		return nil, err
	}
	conf := memberlist.DefaultLANConfig()
	conf.Name = c.roster.node
	conf.Transport = c.transport
	conf.AdvertiseAddr, conf.AdvertisePort = host, port
	conf.Label = c.cfg.label()
	conf.Keyring = c.keys.ring
	conf.Logger = c.libraryLogger()
	conf.Delegate, conf.Events, conf.Alive = c.roster, c.roster, c.roster
	conf.ProbeInterval, conf.ProbeTimeout = probeInterval, probeTimeout
	conf.SuspicionMult, conf.SuspicionMaxTimeoutMult = suspicionMult, suspicionMaxMult
	conf.AwarenessMaxMultiplier = awarenessMax
	conf.GossipInterval, conf.GossipToTheDeadTime = gossipInterval, gossipToTheDead
	conf.PushPullInterval = pushPullInterval
	conf.RetransmitMult = retransmitMult
	conf.TCPTimeout = streamTimeout
	conf.EnableCompression = false
	return conf, nil
}
