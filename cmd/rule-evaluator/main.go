// Rule-evaluator is a member of a cluster that evaluates rules.
package main

import (
	"os"

	"github.com/tocsin-rules/tocsin/cmd/internal/cli"
	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

func main() {
	os.Exit(cli.RuleEvaluator(os.Args[1:], command.Streams{Stdout: os.Stdout, Stderr: os.Stderr}))
}
