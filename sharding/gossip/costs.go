package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"

	"github.com/tocsin-rules/tocsin/sharding"
)

// Costs as members exchange them: a magic byte and the version of this format,
// then the version of the costs, the cost of the light groups and the number of
// heavy ones (uvarints), and for each of those its hash (8 bytes, big endian)
// and cost (uvarint). They are sent to everybody when they are new, and are part
// of each exchange of everything between two members, the one when a member
// joins included.
const (
	costsMagic   = 'C'
	costsVersion = 1
)

var errCosts = errors.New("costs of another program or version")

func encodeCosts(c sharding.Costs) []byte {
	heavy := c.Heavy()
	b := []byte{costsMagic, costsVersion}
	b = binary.AppendUvarint(b, c.Version())
	b = binary.AppendUvarint(b, c.Others())
	b = binary.AppendUvarint(b, uint64(len(heavy)))
	for _, h := range heavy {
		b = binary.BigEndian.AppendUint64(b, h.Group)
		b = binary.AppendUvarint(b, h.Cost)
	}
	return b
}

func decodeCosts(b []byte) (sharding.Costs, error) {
	if len(b) < 2 || b[0] != costsMagic || b[1] != costsVersion {
		return sharding.Costs{}, errCosts
	}
	r := metaReader{rest: b[2:]}
	version, others, n := r.uvarint(), r.uvarint(), r.uvarint()
	if n > sharding.MaxHeavy {
		return sharding.Costs{}, fmt.Errorf("costs of %d heavy groups, the limit is %d", n, sharding.MaxHeavy)
	}
	heavy := make([]sharding.Heavy, n)
	for i := range heavy {
		heavy[i].Group = binary.BigEndian.Uint64(r.bytes(8))
		heavy[i].Cost = r.uvarint()
	}
	if r.short {
		return sharding.Costs{}, errCosts
	}
	return sharding.NewCosts(version, others, heavy), nil
}

// SetCosts has all members take these costs, unless they have newer ones.
func (c *Cluster) SetCosts(costs sharding.Costs) {
	if !c.roster.takeCosts(costs) {
		return
	}
	select {
	case c.tellCosts <- struct{}{}:
	default:
	}
}

// keepCostsTold sends new costs to every member; who can't be reached now gets
// them at the next exchange of everything with anybody.
func (c *Cluster) keepCostsTold(ctx context.Context, list *memberlist.Memberlist) {
	for {
		select {
		case <-c.tellCosts:
		case <-ctx.Done():
			return
		}
		msg := encodeCosts(c.View().Costs())
		for _, n := range list.Members() {
			if n.Name == c.roster.node || ctx.Err() != nil {
				continue
			}
			if err := list.SendReliable(n, msg); err != nil {
				c.logger.Debug("costs of groups not sent", "member", n.Name, "err", err)
			}
		}
	}
}

// takeCosts tells whether the costs are newer than those that this member had.
func (r *roster) takeCosts(costs sharding.Costs) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !costs.NewerThan(r.costs) {
		return false
	}
	r.costs = costs
	r.refresh()
	return true
}

// NotifyMsg takes costs that another member sends.
func (r *roster) NotifyMsg(b []byte) {
	costs, err := decodeCosts(b)
	if err != nil {
		r.metrics.rejected.WithLabelValues(reasonCosts).Inc()
		return
	}
	r.takeCosts(costs)
}

// LocalState is what two members tell each other from time to time.
func (r *roster) LocalState(bool) []byte { return encodeCosts(r.view.Load().Costs()) }

// MergeRemoteState takes the other one's. One of the first version says nothing.
func (r *roster) MergeRemoteState(b []byte, _ bool) {
	if len(b) > 0 {
		r.NotifyMsg(b)
	}
}

// GetBroadcasts returns nothing: what is not about members is sent whole.
func (r *roster) GetBroadcasts(int, int) [][]byte { return nil }
