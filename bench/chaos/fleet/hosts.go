package fleet

import (
	"fmt"
	"os/exec"
	"strings"
)

// Hosts are network namespaces on one bridge of this machine, one for each
// member. It needs the privileges to make them.
type Hosts struct {
	prefix string
	n      int
}

const bridge = "tocsin-chaos"

// NewHosts makes n hosts; the error tells what is not permitted. Close removes
// them.
func NewHosts(n int) (*Hosts, error) {
	h := &Hosts{prefix: "10.231.77.", n: n}
	h.Close() // What a run that was killed may have left.
	cmds := []string{
		"link add " + bridge + " type bridge",
		fmt.Sprintf("addr add %s/24 dev %s", h.Gateway(), bridge),
		"link set " + bridge + " up",
	}
	for i := range n {
		ns, veth := h.name(i), fmt.Sprintf("tch%d", i)
		cmds = append(cmds,
			"netns add "+ns,
			fmt.Sprintf("link add %s type veth peer name eth0 netns %s", veth, ns),
			fmt.Sprintf("link set %s master %s up", veth, bridge),
			fmt.Sprintf("-n %s addr add %s/24 dev eth0", ns, h.Address(i)),
			fmt.Sprintf("-n %s link set eth0 up", ns),
			fmt.Sprintf("-n %s link set lo up", ns),
		)
	}
	for _, c := range cmds {
		if err := ip(c); err != nil {
			h.Close()
			return nil, err
		}
	}
	return h, nil
}

func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (h *Hosts) name(i int) string { return fmt.Sprintf("%s-%d", bridge, i) }

// Gateway is the address of this machine, as the hosts reach it.
func (h *Hosts) Gateway() string { return h.prefix + "1" }

// Address is that of a host.
func (h *Hosts) Address(i int) string { return fmt.Sprintf("%s%d", h.prefix, 10+i) }

// Exec are the words before a command that runs it on a host.
func (h *Hosts) Exec(i int) []string { return []string{"ip", "netns", "exec", h.name(i)} }

// Cut drops what one host sends to another; the opposite direction stays.
func (h *Hosts) Cut(from, to int) error {
	return ip(fmt.Sprintf("-n %s route add blackhole %s/32", h.name(from), h.Address(to)))
}

// Heal ends all cuts.
func (h *Hosts) Heal() {
	for i := range h.n {
		_ = ip(fmt.Sprintf("-n %s route flush type blackhole", h.name(i))) // There may be none.
	}
}

// Close removes the hosts.
func (h *Hosts) Close() {
	for i := range h.n {
		_ = ip("netns del " + h.name(i)) // It may be gone.
	}
	_ = ip("link del " + bridge)
}
