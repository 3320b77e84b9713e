package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// joinMin and joinMax bound the time between two attempts of a member
	// that is alone, though it has peers.
	joinMin = 250 * time.Millisecond
	joinMax = 5 * time.Second
	// rejoinInterval is the time between two looks for peers that are missing
	// in a cluster of several.
	rejoinInterval = 5 * time.Second
	lookupTimeout  = 2 * time.Second
	// maxAttempts bounds how many missing addresses are tried in one look;
	// they are chosen at random. One that answers brings all its side.
	maxAttempts       = 8
	maxPeersFileBytes = 256 << 10
)

// keepJoined connects to peers that should be there and are not: at first all
// of them, after a partition those on the other side.
func (c *Cluster) keepJoined(ctx context.Context, list *memberlist.Memberlist) {
	wait, lastErr := joinMin, ""
	for ctx.Err() == nil {
		if err := c.joinMissing(ctx, list); err == nil {
			lastErr = ""
		} else if text := err.Error(); text != lastErr {
			c.logger.Warn("gossip peers not reached, trying again", "err", err)
			lastErr = text
		}
		if c.roster.hasNewerSelf() {
			c.logger.Error("another process runs under this member's name", "member", c.cfg.Name)
		}
		if list.NumMembers() > 1 || len(c.cfg.Peers) == 0 && c.cfg.PeersFile == "" {
			wait = rejoinInterval
		}
		pause(ctx, wait)
		wait = min(2*wait, joinMax)
	}
}

// pause waits for about d, so that members don't act in step.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d*3/4 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// joinMissing tries peers that are not members. It fails only if none of the
// missing ones was reached and this member is alone.
func (c *Cluster) joinMissing(ctx context.Context, list *memberlist.Memberlist) error {
	missing, err := c.missing(ctx)
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	for _, address := range missing[:min(len(missing), maxAttempts)] {
		if ctx.Err() != nil {
			return nil
		}
		if _, joinErr := list.Join([]string{address}); joinErr != nil {
			c.metrics.joins.WithLabelValues("failure").Inc()
			err = errors.Join(err, fmt.Errorf("join %s: %w", address, joinErr))
			continue
		}
		c.metrics.joins.WithLabelValues("success").Inc()
		// memberlist's queue may have dropped a state that was set while the
		// join was under way: a broadcast that replaces the only other one
		// loses its identity to the next of the same length.
		c.gossipState()
	}
	if list.NumMembers() > 1 {
		return nil
	}
	return err
}

// missing resolves all peers, adds the addresses of members that failed, and
// takes those away that are there, this member among them.
func (c *Cluster) missing(ctx context.Context) ([]string, error) {
	addresses, err := c.resolve(ctx)
	addresses = append(addresses, c.roster.failedAddresses()...)
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	present := c.roster.addresses()
	if own, addrErr := c.Addr(); addrErr == nil {
		present[own] = true
	}
	return slices.DeleteFunc(addresses, func(a string) bool { return present[a] }), err
}

func (c *Cluster) resolve(ctx context.Context) ([]string, error) {
	fromFile, err := readPeers(c.cfg.PeersFile)
	errs := []error{err}
	var addresses []string
	for _, peer := range slices.Concat(c.cfg.Peers, fromFile) {
		found, err := c.resolvePeer(ctx, peer)
		addresses, errs = append(addresses, found...), append(errs, err)
	}
	return addresses, errors.Join(errs...)
}

func (c *Cluster) resolvePeer(ctx context.Context, peer string) ([]string, error) {
	host, port, err := net.SplitHostPort(peer)
	if err != nil {
		return nil, fmt.Errorf("gossip peer %q: %w", peer, err)
	}
	if net.ParseIP(host) != nil {
		return []string{peer}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := c.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve gossip peer %q: %w", peer, err)
	}
	addresses := make([]string, len(ips))
	for i, ip := range ips {
		addresses[i] = net.JoinHostPort(ip, port)
	}
	return addresses, nil
}

// readPeers reads a file of peers; no file has none.
func readPeers(file string) ([]string, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readBounded(file, maxPeersFileBytes)
	if err != nil {
		return nil, fmt.Errorf("gossip peers file: %w", err)
	}
	peers := entries(string(text))
	if err := validatePeers(peers); err != nil {
		return nil, fmt.Errorf("gossip peers file %q: %w", file, err)
	}
	return peers, nil
}
