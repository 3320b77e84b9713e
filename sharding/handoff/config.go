package handoff

import (
	"errors"
	"fmt"
	"time"
)

// Config holds the name of the member and the bounds of everything that it
// waits for or keeps.
type Config struct {
	// Self is the name of this member in views.
	Self string
	// ClaimTimeout is how long a new owner waits for others to give a group
	// up before it starts it with what it knows.
	ClaimTimeout time.Duration
	// WokenTimeout takes the place of ClaimTimeout for groups that ran here
	// before this member was asleep.
	WokenTimeout time.Duration
	// RetryInterval is the time between two claims of a group from a member
	// that refused or failed, and between two attempts to recover it.
	RetryInterval time.Duration
	// ClaimExpiry is after how long a Claim without answer counts as failed,
	// should the shell never tell.
	ClaimExpiry time.Duration
	// AnswerTimeout is how long the answer to a claim waits for slots in
	// progress. It is shorter than ClaimTimeout, so that the group can be
	// asked for again in time.
	AnswerTimeout time.Duration
	// RecoverTimeout is how long a group waits for all of the backends that
	// concern it before it starts with what those know that answer.
	RecoverTimeout time.Duration
	// UnclaimedTimeout is how long a group runs on after another member
	// became its owner, if it isn't claimed.
	UnclaimedTimeout time.Duration
	// KeepTimeout is how long a state is kept after this member stopped being
	// owner or successor of the group, or the group was removed.
	KeepTimeout time.Duration
	// MaxStates and MaxStateBytes bound all kept states together.
	MaxStates     int
	MaxStateBytes int
}

// DefaultConfig returns the bounds that suit clusters of any size.
func DefaultConfig(self string) Config {
	return Config{
		Self:             self,
		ClaimTimeout:     2 * time.Second,
		WokenTimeout:     15 * time.Second,
		RetryInterval:    500 * time.Millisecond,
		ClaimExpiry:      10 * time.Second,
		AnswerTimeout:    time.Second,
		RecoverTimeout:   30 * time.Second,
		UnclaimedTimeout: 30 * time.Second,
		KeepTimeout:      5 * time.Minute,
		MaxStates:        100_000,
		MaxStateBytes:    512 << 20,
	}
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Self == "" {
		errs = append(errs, errors.New("handoff needs the name of this member"))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"claim timeout", c.ClaimTimeout},
		{"woken timeout", c.WokenTimeout},
		{"retry interval", c.RetryInterval},
		{"claim expiry", c.ClaimExpiry},
		{"answer timeout", c.AnswerTimeout},
		{"recover timeout", c.RecoverTimeout},
		{"unclaimed timeout", c.UnclaimedTimeout},
		{"keep timeout", c.KeepTimeout},
	} {
		if d.value <= 0 {
			errs = append(errs, fmt.Errorf("handoff %s %s: must be greater than 0", d.name, d.value))
		}
	}
	if c.AnswerTimeout >= c.ClaimTimeout {
		errs = append(errs, fmt.Errorf("handoff answer timeout %s: must be less than the claim timeout %s", c.AnswerTimeout, c.ClaimTimeout))
	}
	if c.MaxStates <= 0 || c.MaxStateBytes <= 0 {
		errs = append(errs, fmt.Errorf("handoff bounds of kept states %d and %d bytes: must be greater than 0", c.MaxStates, c.MaxStateBytes))
	}
	return errors.Join(errs...)
}
