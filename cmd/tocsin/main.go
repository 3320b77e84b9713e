// Tocsin is the program for everything: it runs the whole system on one
// machine, each of its processes, checks and explains rules, and looks at a
// running cluster.
package main

import (
	"os"

	"github.com/tocsin-rules/tocsin/cmd/internal/cli"
	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

func main() {
	os.Exit(cli.Tocsin(os.Args[1:], command.Streams{Stdout: os.Stdout, Stderr: os.Stderr}))
}
