package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

func newInspect(a *app) *cobra.Command {
	var format, kind string
	var size bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NAME|ID [NAME|ID...]", Short: "Print everything about containers or images, as JSON", Args: atLeast(1, "a NAME or ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found := []any{}
			missing := false
			for _, name := range args {
				v, err := a.inspect(cmd, kind, name, size)
				if errors.Is(err, fault.NotFound) {
					// In Docker's words, which programs look for.
					fmt.Fprintln(cmd.ErrOrStderr(), printable("Error: No such object: "+name))
					missing = true
					continue
				}
				if err != nil {
					return err
				}
				found = append(found, v)
			}
			if missing && format != "" && len(found) == 0 {
				return exitCode(1)
			}
			if err := printInspected(cmd, format, found); err != nil {
				return err
			}
			if missing {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template for each object")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "and how much a container has written: SizeRw, SizeRootFs")
	cmd.Flags().StringVar(&kind, "type", "", "look only for a `container`, an image or a volume")
	return cmd
}

func printInspected(cmd *cobra.Command, format string, found []any) error {
	switch format {
	case "":
		return indented(cmd.OutOrStdout(), found)
	case "json":
		s, err := toJSON(found)
		if err != nil {
			return err
		}
		return say(cmd, s)
	}
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	for _, v := range found {
		// Templates see the same names as the JSON has.
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		var m any
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			return err
		}
		// As for Docker's, to which ID is the field and Id its name in JSON.
		if m, ok := m.(map[string]any); ok && m["Id"] != nil {
			m["ID"] = m["Id"]
		}
		if err := execute(cmd.OutOrStdout(), t, plainNumbers(m)); err != nil {
			return err
		}
	}
	return nil
}

// plainNumbers makes whole numbers integers: a template would otherwise print
// a size as 6.7108864e+07.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plainNumbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		f, _ := v.Float64() // encoding/json wrote it
		return f
	}
	return v
}

func (a *app) inspect(cmd *cobra.Command, kind, name string, size bool) (any, error) {
	var out any
	if kind == "" || kind == "container" {
		err := a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
			c, err := eng.Find(cmd.Context(), name)
			if err != nil {
				return err
			}
			details, err := containerDetails(cmd.Context(), eng, c)
			if err == nil && size {
				details["SizeRw"], details["SizeRootFs"], err = a.sizeOf(cmd.Context(), eng, c)
			}
			out = details
			return err
		})
		if err == nil || kind != "" || !errors.Is(err, fault.NotFound) {
			return out, err
		}
	}
	if kind == "volume" {
		return a.inspectVolume(cmd, name)
	}
	if kind != "" && kind != "image" {
		return nil, invalid("inspect.type", fmt.Sprintf("--type %.32q is not there yet", kind), "use container, image or volume")
	}
	store, err := a.store(cmd.Context())
	if err != nil {
		return nil, err
	}
	img, raw, err := store.Inspect(cmd.Context(), name)
	if kind == "" && errors.Is(err, fault.NotFound) {
		return a.inspectVolume(cmd, name)
	}
	if err != nil {
		return nil, err
	}
	var config struct {
		Config json.RawMessage `json:"config"`
		Author string          `json:"author"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, err
	}
	layers := []string{}
	for _, l := range img.Layers {
		layers = append(layers, l.DiffID)
	}
	return map[string]any{
		"Id": img.ID, "RepoTags": []string{img.Reference}, "Digest": img.Digest, "Index": img.Index, "Platform": img.Platform,
		"Created": img.Created.Format(time.RFC3339Nano), "Author": config.Author, "Size": img.Size, "Config": config.Config,
		"RootFS": map[string]any{"Type": "layers", "Layers": layers},
	}, nil
}

// execIDs are the processes that were started in the container and still run;
// null, as Docker says it, if there are none. Inspecting does not wait for a
// monitor that does not answer.
func execIDs(ctx context.Context, eng *engine.Engine, c engine.Container) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ids, err := eng.Execs(ctx, c)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return ids, nil
}
