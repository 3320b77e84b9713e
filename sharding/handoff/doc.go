// Package handoff decides how rule groups move between members: when a member
// claims a group, stops it, answers with its state, starts it, and where
// checkpoints go.
//
// It is pure. A [Core] is driven by [Core.Step] with the time and one [Event],
// and answers with a [Ready]: the actions that its shell has to perform, in
// that order. It reads no clock, does no I/O and starts no goroutine; it is
// not safe for concurrent use, one goroutine owns it. The rule groups
// themselves are evaluated by the shell, the ruler. The scripts of its tests
// are in testdata; they show every case below step by step.
//
// # The contract
//
// The shell
//
//   - gives Step a Tick at least every half second, and times that never go
//     backwards;
//   - performs the actions of a Ready in order before the next Step;
//   - for every Claim, gives back exactly one ClaimAnswered or ClaimFailed
//     with the same member and keys, within a deadline of its own;
//   - for every Recover, gives back one Recovered or RecoverFailed;
//   - for every Stop, gives back one Stopped when the slot in progress is
//     finished, with the state after it, and evaluates the group no more;
//   - for every ClaimReceived sends the States of the Answer of its ID to the
//     claiming member, or drops them if that member waits no longer;
//   - gives back one Committed after the slots of running groups were
//     acknowledged by the backends, also while a group is being stopped;
//   - sends a Checkpoint to its member, once; nobody waits for it.
//
// Performing an action twice does no harm, and an action or event that is lost
// delays a group by a bound named in [Config], but never for ever.
//
// # How a group moves
//
// The owner of a group is what the member's own view says (sharding.View).
// A member that becomes the owner of a group claims it from all other members,
// whatever their state: one Claim for each of them, with all keys. A member
// that receives a claim
//
//   - refuses, if it is the owner by its own view: the key is missing in the
//     Answer and the member runs on;
//   - else, if it runs the group, stops it, waits for Stopped and answers with
//     the state after the last slot;
//   - else answers with the state that it keeps, a checkpoint or what it had
//     when it stopped, or with the key alone if it knows nothing.
//
// So a key in an answer says that the answering member doesn't run the group,
// and a missing one that the claim has to be repeated. An answer waits a
// bounded time for slots to finish; a group that takes longer is left out and
// asked for again.
//
// When all members have given the group up, or after Config.ClaimTimeout, the
// new owner starts it from the newest state that anybody knew, its own kept
// states included. If nobody knew anything, or nobody but members that were
// neither owner nor successor for a while since, the state is recovered from the
// backends. While none of those that concern the group answers, it waits: it
// could not be evaluated either. If some answer and others do not for
// Config.RecoverTimeout, it starts with what those know.
// Members that have not given the group up are asked again for as long as they
// are in the view and this member is the owner, whether it runs the group or
// not. A newer state that arrives when the group already runs is counted in
// Stats.LateStates and otherwise ignored: the slots in between are evaluated
// twice, with equal effect.
//
// A running group whose owner is somebody else runs on until it is claimed. If
// no claim comes for Config.UnclaimedTimeout it stops. Without any ready member
// it runs on, unless this member drains.
//
// After each Committed the state goes to the successor; from a member that runs
// a group without being its owner it goes to the owner.
//
// # When views disagree
//
// Views are gossiped and carry no version: no view is newer than another, they
// only become equal in the end. Until then a group may have two members that
// think they own it, or none.
//
//   - The claimant is the owner by its own view only, as a member that has just
//     become ready while the news still travels. The runner refuses and the
//     claim is repeated every Config.RetryInterval. Mostly the views agree
//     before Config.ClaimTimeout, and the group moves with its exact state.
//     Else both run it, and the repeated claims end that once the views agree.
//   - Both think they own it and neither runs it. Both refuse, both start after
//     Config.ClaimTimeout. Whoever refuses a claim notes that the claimant will
//     run the group, and claims it from him until he gives it up: when the
//     views agree, the loser does.
//   - A member runs a group that it no longer owns, and the owner doesn't know
//     because its own view never changed. The member's next checkpoint goes to
//     the owner, who claims the group from the sender.
//   - A partition: both sides evaluate everything, each with its own members.
//     When it heals, each member finds others in its view that weren't there
//     before, and claims from them all that it owns.
//   - Nobody thinks he is the owner. The runner runs on for
//     Config.UnclaimedTimeout, far longer than views take to agree. Once they
//     agree the owner claims the group, runner or not.
//
// So, once views agree and messages flow, there is exactly one runner, the
// owner, after the longest of ClaimTimeout, RetryInterval and the end of the
// slots in progress.
package handoff
