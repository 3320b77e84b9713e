// Collector scrapes targets and writes what it finds to a backend.
package main

import (
	"os"

	"github.com/tocsin-rules/tocsin/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Collector(os.Args[1:], cli.Streams{Stdout: os.Stdout, Stderr: os.Stderr}))
}
