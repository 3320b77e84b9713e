// Collector scrapes targets and writes what it finds to a backend.
package main

import (
	"os"

	"github.com/tocsin-rules/tocsin/cmd/internal/collector"
	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

func main() {
	os.Exit(collector.Run(os.Args[1:], command.Streams{Stdout: os.Stdout, Stderr: os.Stderr}))
}
