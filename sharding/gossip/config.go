package gossip

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/tocsin-rules/tocsin/sharding"
)

const (
	maxNameLength  = 128
	maxLabelLength = 128
	// maxPeers bounds the configured peers; each may resolve to several
	// addresses.
	maxPeers = 1000
	// labelPrefix keeps other programs that gossip with memberlist out, also
	// where no label is configured.
	labelPrefix = "tocsin/"
)

// Config says who this member is and where the others are.
type Config struct {
	// Name is unique in the cluster, as a pod's name is. It has no slash.
	Name string
	// BindAddress is the IP address and port to listen on, TCP and UDP; port
	// 0 means any. Only a loopback address may do without a key file.
	BindAddress string
	// AdvertiseAddress is the IP address and port that others reach this
	// member at; port 0 means the bound one. Empty means the bound address,
	// or a private address of this machine if that is unspecified.
	AdvertiseAddress string
	// Peers are other members' addresses, "host:port". A name stands for all
	// addresses that it resolves to at the time, as that of a headless
	// Service; this member's own address may be among them.
	Peers []string
	// PeersFile has more of them, one a line; empty lines and those that begin
	// with # are skipped. It is read whenever members are missing.
	PeersFile string
	// KeyFile holds the keys that gossip is encrypted with: 16, 24 or 32 bytes
	// in base64, one a line. The first one encrypts, all of them decrypt. It
	// is read again when it changes. Empty means no encryption.
	KeyFile string
	// Zone, Weight, HTTPAddress and GRPCAddress are for sharding.Member. In place
	// of an unspecified host the others are told the one that they reach this
	// member's gossip at.
	Zone        string
	Weight      float64
	HTTPAddress string
	GRPCAddress string
	// ClusterLabel keeps clusters apart whose members can reach each other.
	ClusterLabel string
}

// Validate reports every fault of the configuration. It reads no file.
func (c Config) Validate() error {
	var errs []error
	if c.Name == "" || len(c.Name) > maxNameLength || strings.ContainsFunc(c.Name, invalidInName) {
		errs = append(errs, fmt.Errorf("member name %q: must be 1 to %d printable characters without space and slash", c.Name, maxNameLength))
	}
	if len(c.ClusterLabel) > maxLabelLength {
		errs = append(errs, fmt.Errorf("cluster label of %d bytes: must be at most %d", len(c.ClusterLabel), maxLabelLength))
	}
	errs = append(errs, validatePeers(c.Peers))
	if n := len(encodeMeta(c.local(), Load{})) + maxLoadBytes; n > memberlist.MetaMaxSize {
		errs = append(errs, fmt.Errorf("zone and addresses of member %q take %d bytes: gossip carries at most %d", c.Name, n, memberlist.MetaMaxSize))
	}
	return errors.Join(append(errs, c.validateAddresses())...)
}

func (c Config) validateAddresses() error {
	host, _, err := splitAddress(c.BindAddress)
	if err != nil {
		return err
	}
	if c.AdvertiseAddress != "" {
		if _, _, err := splitAddress(c.AdvertiseAddress); err != nil {
			return err
		}
	} else if host == "::" {
		return fmt.Errorf("gossip address %q: an advertised address is needed with it", c.BindAddress)
	}
	if c.KeyFile == "" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("gossip address %q is not a loopback address: set a gossip key file", c.BindAddress)
	}
	return nil
}

func validatePeers(peers []string) error {
	if len(peers) > maxPeers {
		return fmt.Errorf("%d gossip peers: must be at most %d", len(peers), maxPeers)
	}
	var errs []error
	for _, p := range peers {
		if _, _, err := net.SplitHostPort(p); err != nil {
			errs = append(errs, fmt.Errorf("gossip peer %q: must be host:port", p))
		}
	}
	return errors.Join(errs...)
}

func invalidInName(r rune) bool { return r == '/' || r <= ' ' || r == 0x7f }

// splitAddress wants an IP address: memberlist takes a name for all addresses
// of the machine. An empty host means just these.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("gossip address %q: must be an IP address and a port", address)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if net.ParseIP(host) == nil || err != nil {
		return "", 0, fmt.Errorf("gossip address %q: must be an IP address and a port", address)
	}
	return host, int(n), nil
}

func (c Config) label() string { return labelPrefix + c.ClusterLabel }

// local is this member as it first shows itself.
func (c Config) local() sharding.Member {
	return sharding.Member{
		Name:        c.Name,
		Zone:        c.Zone,
		Weight:      c.Weight,
		State:       sharding.Joining,
		HTTPAddress: c.HTTPAddress,
		GRPCAddress: c.GRPCAddress,
		Version:     ProtocolVersion,
	}
}
