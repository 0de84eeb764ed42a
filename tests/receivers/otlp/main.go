// Command otlp is the OpenTelemetry collector's own OTLP receiver with the
// simplest pipeline behind it: each batch of log records is appended to a file,
// as OTLP/JSON on one line, before the sender is answered.
//
//	otlp ADDRESS FILE
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr, file string) error {
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var m plog.JSONMarshaler
	next, err := consumer.NewLogs(func(_ context.Context, l plog.Logs) error {
		b, err := m.MarshalLogs(l)
		if err != nil {
			return err
		}
		_, err = out.Write(append(b, '\n'))
		return err
	})
	if err != nil {
		return err
	}
	f := otlpreceiver.NewFactory()
	cfg := f.CreateDefaultConfig()
	conf := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": addr}}})
	if err := conf.Unmarshal(cfg); err != nil {
		return err
	}
	set := receiver.Settings{ID: component.NewID(f.Type()), TelemetrySettings: component.TelemetrySettings{
		Logger: zap.NewNop(), TracerProvider: tracenoop.NewTracerProvider(), MeterProvider: metricnoop.NewMeterProvider(),
	}}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := f.CreateLogs(ctx, set, cfg, next)
	if err != nil {
		return err
	}
	if err := r.Start(ctx, noHost{}); err != nil {
		return err
	}
	<-ctx.Done()
	return r.Shutdown(context.Background())
}

// noHost has no extensions: no authentication, no storage.
type noHost struct{}

// GetExtensions are none.
func (noHost) GetExtensions() map[component.ID]component.Component { return nil }
