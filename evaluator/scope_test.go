package evaluator_test

import (
	"testing"
)

// scope is a test whose cleanups run at the end of a part of it, for tests
// that start many fleets one after the other.
type scope struct {
	testing.TB

	cleanups []func()
}

// FailNow implements testing.TB. The part may run on another goroutine than the
// test that it counts to, which FailNow of that would not end.
func (s *scope) FailNow() {
	s.Fail()
	panic("a part of the test failed, see above")
}

// Cleanup implements testing.TB.
func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) close() {
	for len(s.cleanups) > 0 {
		last := len(s.cleanups) - 1
		f := s.cleanups[last]
		s.cleanups = s.cleanups[:last]
		f()
	}
}
