// Command adsload is a crowd of gRPC clients as an xDS server sees it: each stream has a connection of its own,
// asks for a Listener, the route, the cluster and the endpoints that follow from it, acknowledges every response,
// and goes on listening. It measures how long all of them take to get their endpoints when they come at once, how
// long a change takes to reach them, what a newcomer waits for, and what the server's processes spend on it.
//
// A change gives the first endpoint of the first service an address of the network for benchmarks, 198.18.0.0/15
// (RFC 2544), by which it is known again. It is made by an HTTP request on an open connection or by replacing a
// file, so nothing but the server's own work is in its time.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
)

var (
	targets   = flag.String("targets", "127.0.0.1:18000", "xDS servers, separated by commas; streams take them in turn")
	pids      = flag.String("pids", "", "their process ids, in that order")
	services  = flag.Int("services", 1, "stream K asks for service K modulo this")
	streams   = flag.Int("streams", 100, "clients that come at once and listen")
	deaf      = flag.Int("deaf", 0, "more clients, that read until they have endpoints and never again")
	changes   = flag.Int("changes", 20, "how many changes to make")
	newcomers = flag.Int("newcomers", 0, "clients that come one after another at the end")
	post      = flag.String("post", "", "make a change by POST to this URL; the address is put in place of {address}")
	template  = flag.String("template", "", "make a change by writing this file ...")
	output    = flag.String("output", "", "... as this one, with the address in place of "+placeholder)
	hold      = flag.Duration("hold", 0, "stay connected for so long at the end")
	pause     = flag.Duration("pause", 250*time.Millisecond, "rest between changes")
	limit     = flag.Duration("limit", 120*time.Second, "how long anything may take")
)

const (
	network     = "198.18."
	placeholder = network + "0.0"
)

// seen is a client's sight of a change.
type seen struct {
	address string
	at      time.Time
}

// crowd is what the clients tell.
type crowd struct {
	ready  chan struct{}
	seen   chan seen
	pushes atomic.Int64
}

// join connects a client and serves its stream until the end of ctx.
func (c *crowd) join(ctx context.Context, number int, isDeaf bool) error {
	addresses := strings.Split(*targets, ",")
	// Fixed windows: a client that does not read must be one that the server can't write to for ever.
	connection, err := grpc.NewClient("passthrough:///"+addresses[number%len(addresses)],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(1<<16-1), grpc.WithInitialConnWindowSize(1<<16-1),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	defer connection.Close()
	call, err := discovery.NewAggregatedDiscoveryServiceClient(connection).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	metadata, err := structpb.NewStruct(map[string]any{"NAMESPACE": "default"})
	if err != nil {
		return err
	}
	walk := walk{call: call, names: map[string]string{},
		node: &core.Node{Id: fmt.Sprintf("load-%d", number), UserAgentName: "adsload", Metadata: metadata}}
	if err := walk.subscribe(listenerType, fmt.Sprintf("service-%d.default:50051", number%*services)); err != nil {
		return err
	}
	ready := false
	for {
		response, err := call.Recv()
		if err != nil {
			return err
		}
		at := time.Now()
		c.pushes.Add(1)
		if err := walk.take(response); err != nil {
			return err
		}
		if response.TypeUrl != endpointsType || len(response.Resources) == 0 {
			continue
		}
		if !ready {
			ready = true
			c.ready <- struct{}{}
		}
		if isDeaf {
			<-ctx.Done()
			return ctx.Err()
		}
		if address := marker(response.Resources[0].Value); address != "" {
			c.seen <- seen{address, at}
		}
	}
}

// marker finds the address of the network for benchmarks without decoding: clients must cost less than the server.
func marker(assignment []byte) string {
	start := bytes.Index(assignment, []byte(network))
	if start < 0 {
		return ""
	}
	end := start
	for end < len(assignment) && (assignment[end] == '.' || '0' <= assignment[end] && assignment[end] <= '9') {
		end++
	}
	return string(assignment[start:end])
}

// arrive lets that many clients come at once and waits until all have endpoints.
func (c *crowd) arrive(ctx context.Context, first, count int, areDeaf bool) (time.Duration, error) {
	begin := time.Now()
	broken := make(chan error, count)
	for number := first; number < first+count; number++ {
		go func() {
			if err := c.join(ctx, number, areDeaf); err != nil && ctx.Err() == nil {
				broken <- fmt.Errorf("stream %d: %w", number, err)
			}
		}()
	}
	deadline := time.After(*limit)
	for arrived := range count {
		select {
		case <-c.ready:
		case err := <-broken:
			return 0, err
		case <-deadline:
			return 0, fmt.Errorf("%d of %d streams had endpoints after %v", arrived, count, *limit)
		}
	}
	return time.Since(begin), nil
}

// change makes a change and waits until all streams of its service have it; it returns when each had it, in order.
func (c *crowd) change(number, watching int) ([]float64, error) {
	address := fmt.Sprintf("%s%d.%d", network, number/256, number%256)
	begin := time.Now()
	if err := makeChange(address); err != nil {
		return nil, err
	}
	deadline := time.After(*limit)
	var times []float64
	for len(times) < watching {
		select {
		case one := <-c.seen:
			if one.address == address {
				times = append(times, milliseconds(one.at.Sub(begin)))
			}
		case <-deadline:
			return nil, fmt.Errorf("change %d was seen by %d of %d streams after %v", number, len(times), watching, *limit)
		}
	}
	slices.Sort(times)
	return times, nil
}

func makeChange(address string) error {
	if *post != "" {
		response, err := http.Post(strings.ReplaceAll(*post, "{address}", address), "", nil)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body) // so that the connection is used again
		return err
	}
	text, err := os.ReadFile(*template)
	if err != nil {
		return err
	}
	temporary := *output + ".temporary"
	if err := os.WriteFile(temporary, bytes.ReplaceAll(text, []byte(placeholder), []byte(address)), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, *output)
}

func run(ctx context.Context) (map[string]any, error) {
	c := &crowd{ready: make(chan struct{}, 1), seen: make(chan seen, *streams+*newcomers)}
	report := map[string]any{"streams": *streams, "deaf": *deaf, "changes": *changes}
	processes, err := watch(*pids)
	if err != nil {
		return nil, err
	}

	arrival, err := c.arrive(ctx, 0, *streams, false)
	if err != nil {
		return nil, err
	}
	report["arrival_ms"] = milliseconds(arrival)
	report["arrival_cpu_ms"] = processes.lap()
	if _, err := c.arrive(ctx, *streams, *deaf, true); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "connected")

	watching := (*streams + *services - 1) / *services
	var firsts, medians, lasts []float64
	if *changes > 0 {
		// One to warm up, which is not counted.
		if _, err := c.change(*changes+1, watching); err != nil {
			return nil, err
		}
	}
	time.Sleep(*pause)
	processes.lap()
	before, loadBefore := c.pushes.Load(), ownCPU()
	for number := 1; number <= *changes; number++ {
		times, err := c.change(number, watching)
		if err != nil {
			return nil, err
		}
		firsts, medians, lasts = append(firsts, times[0]), append(medians, times[len(times)/2]), append(lasts, times[len(times)-1])
		time.Sleep(*pause) // the acknowledgements belong to it
	}
	count := float64(max(*changes, 1))
	report["change_cpu_ms"] = divide(processes.lap(), count)
	report["change_load_cpu_ms"] = milliseconds(ownCPU()-loadBefore) / count
	report["change_pushes"] = float64(c.pushes.Load()-before) / count
	report["first_ms"], report["median_ms"], report["last_ms"] = quantile(firsts, .5), quantile(medians, .5), quantile(lasts, .5)
	report["last_worst_ms"] = quantile(lasts, 1)

	processes.lap()
	var waits []float64
	for number := range *newcomers {
		wait, err := c.arrive(ctx, *streams+*deaf+number, 1, false)
		if err != nil {
			return nil, err
		}
		waits = append(waits, milliseconds(wait))
	}
	report["newcomer_ms"] = quantile(waits, .5)
	report["newcomer_cpu_ms"] = divide(processes.lap(), float64(max(*newcomers, 1)))
	report["memory_mib"] = processes.memory()
	time.Sleep(*hold)
	return report, nil
}

func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1)+.5)]
}

func divide(values []float64, by float64) []float64 {
	result := make([]float64, len(values))
	for i, value := range values {
		result[i] = value / by
	}
	return result
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func main() {
	flag.Parse()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	report, err := run(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		log.Fatal(err)
	}
}
