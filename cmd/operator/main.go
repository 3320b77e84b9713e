// Operator turns custom resources into the configuration of the other programs.
package main

import (
	"os"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/cmd/internal/operator"
)

func main() {
	os.Exit(operator.Run(os.Args[1:], command.Streams{Stdout: os.Stdout, Stderr: os.Stderr}))
}
