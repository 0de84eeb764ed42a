// Cri takes a pod through its life over the Kubernetes container runtime
// interface, as a kubelet would: a pod on the host's network, one container in
// it, a process in that, other limits, and the end of all. It prints what it is
// told, and stops at the first error.
//
//	cri SOCKET HANDLER IMAGE LOGS
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "cri SOCKET HANDLER IMAGE LOGS")
		os.Exit(2)
	}
	if err := pod(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func pod(socket, handler, image, logs string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	r := v1.NewRuntimeServiceClient(conn)
	// No network of its own: that takes plugins which are not there.
	ns := &v1.NamespaceOption{Network: v1.NamespaceMode_NODE, Pid: v1.NamespaceMode_CONTAINER}
	config := &v1.PodSandboxConfig{Metadata: &v1.PodSandboxMetadata{Name: "pod", Uid: "1", Namespace: "default"}, LogDirectory: logs,
		Linux: &v1.LinuxPodSandboxConfig{SecurityContext: &v1.LinuxSandboxSecurityContext{NamespaceOptions: ns}}}
	p, err := r.RunPodSandbox(ctx, &v1.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return err
	}
	c, err := r.CreateContainer(ctx, &v1.CreateContainerRequest{PodSandboxId: p.PodSandboxId, SandboxConfig: config, Config: &v1.ContainerConfig{
		Metadata: &v1.ContainerMetadata{Name: "one"}, Image: &v1.ImageSpec{Image: image}, Command: []string{"/bin/sleep", "1000"}, LogPath: "one.log",
		Linux: &v1.LinuxContainerConfig{Resources: &v1.LinuxContainerResources{MemoryLimitInBytes: 64 << 20},
			SecurityContext: &v1.LinuxContainerSecurityContext{NamespaceOptions: ns}}}})
	if err != nil {
		return err
	}
	if _, err := r.StartContainer(ctx, &v1.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		return err
	}
	if err := use(ctx, r, c.ContainerId); err != nil {
		return err
	}
	if _, err := r.RemoveContainer(ctx, &v1.RemoveContainerRequest{ContainerId: c.ContainerId}); err != nil {
		return err
	}
	if _, err := r.StopPodSandbox(ctx, &v1.StopPodSandboxRequest{PodSandboxId: p.PodSandboxId}); err != nil {
		return err
	}
	_, err = r.RemovePodSandbox(ctx, &v1.RemovePodSandboxRequest{PodSandboxId: p.PodSandboxId})
	return err
}

// use is what happens to a container while it runs, and its stop.
func use(ctx context.Context, r v1.RuntimeServiceClient, id string) error {
	e, err := r.ExecSync(ctx, &v1.ExecSyncRequest{ContainerId: id, Cmd: []string{"/bin/sh", "-c", "echo from exec; exit 4"}, Timeout: 30})
	if err != nil {
		return err
	}
	fmt.Printf("exec: %q, %d\n", e.Stdout, e.ExitCode)
	if _, err := r.UpdateContainerResources(ctx, &v1.UpdateContainerResourcesRequest{ContainerId: id,
		Linux: &v1.LinuxContainerResources{MemoryLimitInBytes: 48 << 20}}); err != nil {
		return err
	}
	state := func() error {
		st, err := r.ContainerStatus(ctx, &v1.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return err
		}
		fmt.Printf("state: %v, %d, limit %d\n", st.Status.State, st.Status.ExitCode, st.Status.Resources.GetLinux().GetMemoryLimitInBytes())
		return nil
	}
	if err := state(); err != nil {
		return err
	}
	if _, err := r.StopContainer(ctx, &v1.StopContainerRequest{ContainerId: id, Timeout: 1}); err != nil {
		return err
	}
	return state()
}
