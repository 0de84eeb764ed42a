package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/internal/fault"
)

func newRegistry() *cobra.Command {
	group := &cobra.Command{Use: "registry", Short: "A small registry for tests, demos and air-gapped rooms"}
	var addr, dir string
	serve := &cobra.Command{
		Use: "serve --dir DIR [--addr HOST:PORT]", Short: "Serve a registry from a directory until interrupted", Args: exactly(0, "no arguments"),
		Long: "Serve the OCI distribution API without TLS or authentication: for loopback, not for a network.\n" +
			"The address is printed once it is served.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usage("ward registry serve needs --dir")
			}
			h, err := registry.New(dir)
			if err != nil {
				return err
			}
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				return fault.Wrap(fault.Unavailable, "registry.listen", err, "choose another --addr")
			}
			if err := say(cmd, ln.Addr().String()); err != nil {
				return err
			}
			return serveUntil(cmd.Context(), ln, h)
		},
	}
	serve.Flags().StringVar(&addr, "addr", "127.0.0.1:0", "`address` to listen on; port 0 takes a free one")
	serve.Flags().StringVar(&dir, "dir", "", "`directory` that keeps it all")
	group.AddCommand(serve)
	return group
}

// serveUntil serves until ctx ends, then lets what has begun finish.
func serveUntil(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done <- srv.Shutdown(stop)
	}()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("registry: %w", err)
	}
	return <-done
}
