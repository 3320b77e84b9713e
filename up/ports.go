package up

import (
	"errors"
	"fmt"
	"net"
)

// checkPorts reports every port that is taken, before anything starts.
func checkPorts(uses []portUse) error {
	var errs []error
	for _, u := range uses {
		if err := tryPort(u); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		errs = append(errs, errors.New("end what uses the port, or choose other ports with --port-base"))
	}
	return errors.Join(errs...)
}

func tryPort(u portUse) error {
	wrap := func(err error) error {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return fmt.Errorf("%s port %s, for %s, can't be used: %w", u.network, u.address, u.purpose, err)
	}
	if u.network == "udp" {
		c, err := net.ListenPacket(u.network, u.address)
		if err != nil {
			return wrap(err)
		}
		return c.Close()
	}
	l, err := net.Listen(u.network, u.address)
	if err != nil {
		return wrap(err)
	}
	return l.Close()
}
