package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// confirm asks before something is removed, as Docker does, unless force says
// not to. Anything but y, and the end of the input, is no.
func confirm(cmd *cobra.Command, force bool, warning, what string) error {
	if force {
		return nil
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "WARNING! %s\nAre you sure you want to continue? [y/N] ", warning); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1024)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(line), "y") {
		return invalid("prune.cancelled", what+" has been cancelled", "answer y, or give --force")
	}
	return nil
}
