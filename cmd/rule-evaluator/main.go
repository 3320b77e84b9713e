// Rule-evaluator is a member of a cluster that evaluates rules.
package main

import (
	"os"

	"github.com/tocsin-rules/tocsin/cmd/internal/cli"
)

func main() {
	os.Exit(cli.RuleEvaluator(os.Args[1:], cli.Streams{Stdout: os.Stdout, Stderr: os.Stderr}))
}
