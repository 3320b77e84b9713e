package handoff_test

import (
	"fmt"
	"time"

	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

// A shell owns the core in one goroutine: it turns whatever happens into
// events, and performs the actions of each Ready in order. This one claims a
// group from a member that leaves.
func Example() {
	core := handoff.New(handoff.DefaultConfig("a"))
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

	perform := func(ready handoff.Ready) {
		for _, action := range ready {
			switch a := action.(type) {
			case handoff.Claim:
				fmt.Println("call Claim of", a.To, "for", a.Keys, "and give back ClaimAnswered or ClaimFailed")
			case handoff.Start:
				fmt.Println("evaluate", a.Key, "from the slot after", a.State.CommittedSlot.Format(time.TimeOnly), "as known by", a.From)
			case handoff.Stop:
				fmt.Println("finish the slot of", a.Key, "and give back Stopped")
			case handoff.Answer:
				fmt.Println("answer the claim", a.ID, "with", a.States)
			case handoff.Checkpoint:
				fmt.Println("call Checkpoint of", a.To, "with", a.States)
			case handoff.Recover:
				fmt.Println("ask the backend about", a.Keys, "and give back Recovered or RecoverFailed")
			case handoff.Drained:
				fmt.Println("leave the cluster")
			}
		}
	}

	view := sharding.NewView([]sharding.Member{
		{Name: "a", State: sharding.Ready},
		{Name: "b", State: sharding.Leaving},
	})
	perform(core.Step(now, handoff.GroupsChanged{Keys: []string{"tenant/rules/cpu"}}))
	perform(core.Step(now, handoff.ViewChanged{View: view}))
	perform(core.Step(now, handoff.ClaimAnswered{
		From: "b",
		Keys: []string{"tenant/rules/cpu"},
		States: []handoff.GroupState{{
			Key: "tenant/rules/cpu", CommittedSlot: now, Data: []byte("alerts"), Version: 1,
		}},
	}))
	// Output:
	// call Claim of b for [tenant/rules/cpu] and give back ClaimAnswered or ClaimFailed
	// evaluate tenant/rules/cpu from the slot after 12:00:00 as known by b
}
