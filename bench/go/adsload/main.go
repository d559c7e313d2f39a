// Command adsload simulates many gRPC clients of an xDS server. Each stream has its own connection, subscribes to a
// Listener and to the route, cluster and endpoints that it leads to, acknowledges every response and stays open.
// adsload measures how long all clients take to get endpoints when they connect at once, how long a change takes to
// reach them, how long a new client waits, and the resources that the server's processes use.
//
// A change sets the address of the first endpoint of the first service to one of the network for benchmarks,
// 198.18.0.0/15 (RFC 2544), by which clients recognize it. It is made by an HTTP request on an open connection or by
// replacing a file, so that its time only contains the server's work.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
)

var (
	targets    = flag.String("targets", "127.0.0.1:18000", "xDS servers, separated by commas; streams alternate between them")
	pids       = flag.String("pids", "", "process ids of the xDS servers, in the same order")
	services   = flag.Int("services", 1, "stream K subscribes to service K modulo this number")
	zones      = flag.Int("zones", 1, "number of zones over which the clients are spread")
	streams    = flag.Int("streams", 100, "number of clients that connect at once and keep reading")
	stalled    = flag.Int("stalled", 0, "number of additional clients that stop reading once they have endpoints")
	changes    = flag.Int("changes", 20, "number of changes")
	newClients = flag.Int("new-clients", 0, "number of clients that connect one after another at the end")
	post       = flag.String("post", "", "make a change by POST to this URL, with the address in place of {address}")
	template   = flag.String("template", "", "make a change by copying this file ...")
	output     = flag.String("output", "", "... to this one, with the address in place of "+placeholder)
	hold       = flag.Duration("hold", 0, "how long to stay connected at the end")
	pause      = flag.Duration("pause", 250*time.Millisecond, "pause between changes")
	tlsFolder  = flag.String("tls", "", "connect with TLS, with the tls.crt, tls.key and ca.crt in this folder")
	limit      = flag.Duration("limit", 120*time.Second, "timeout of each step")
)

const (
	network     = "198.18."
	placeholder = network + "0.0"
)

// receipt says when a client received a change.
type receipt struct {
	address string
	at      time.Time
}

// crowd collects the events of all clients.
type crowd struct {
	ready    chan struct{}
	receipts chan receipt
	pushes   atomic.Int64
}

// encryption is what a client of a server for localhost needs; without a folder it does not encrypt.
var encryption = sync.OnceValues(func() (credentials.TransportCredentials, error) {
	if *tlsFolder == "" {
		return insecure.NewCredentials(), nil
	}
	pair, err := tls.LoadX509KeyPair(*tlsFolder+"/tls.crt", *tlsFolder+"/tls.key")
	if err != nil {
		return nil, err
	}
	authorities, err := os.ReadFile(*tlsFolder + "/ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authorities)
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "localhost"}), nil
})

// join connects a client and runs its stream until the end of ctx.
func (c *crowd) join(ctx context.Context, number int, stalls bool) error {
	addresses := strings.Split(*targets, ",")
	encryption, err := encryption()
	if err != nil {
		return err
	}
	// Fixed windows, so that the server cannot write to a client that does not read.
	connection, err := grpc.NewClient("passthrough:///"+addresses[number%len(addresses)],
		grpc.WithTransportCredentials(encryption),
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
		node: &core.Node{Id: fmt.Sprintf("load-%d", number), UserAgentName: "adsload", Metadata: metadata,
			Locality: &core.Locality{Zone: fmt.Sprintf("zone-%c", 'a'+number%*zones)}}}
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
		if stalls {
			<-ctx.Done()
			return ctx.Err()
		}
		if address := marker(response.Resources[0].Value); address != "" {
			c.receipts <- receipt{address, at}
		}
	}
}

// marker finds the address of the network for benchmarks without decoding, so that clients cost less than the server.
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

// connect starts clients at once and returns how long it took until all had endpoints.
func (c *crowd) connect(ctx context.Context, first, count int, stall bool) (time.Duration, error) {
	begin := time.Now()
	broken := make(chan error, count)
	for number := first; number < first+count; number++ {
		go func() {
			if err := c.join(ctx, number, stall); err != nil && ctx.Err() == nil {
				broken <- fmt.Errorf("stream %d: %w", number, err)
			}
		}()
	}
	deadline := time.After(*limit)
	for connected := range count {
		select {
		case <-c.ready:
		case err := <-broken:
			return 0, err
		case <-deadline:
			return 0, fmt.Errorf("%d of %d streams had endpoints after %v", connected, count, *limit)
		}
	}
	return time.Since(begin), nil
}

// change makes a change, waits until all streams of its service have it, and returns the sorted times until each had it.
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
		case one := <-c.receipts:
			if one.address == address {
				times = append(times, milliseconds(one.at.Sub(begin)))
			}
		case <-deadline:
			return nil, fmt.Errorf("change %d reached %d of %d streams after %v", number, len(times), watching, *limit)
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
		_, err = io.Copy(io.Discard, response.Body) // so that the connection is reused
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
	c := &crowd{ready: make(chan struct{}, 1), receipts: make(chan receipt, *streams+*newClients)}
	report := map[string]any{"streams": *streams, "stalled": *stalled, "changes": *changes}
	processes, err := watch(*pids)
	if err != nil {
		return nil, err
	}

	took, err := c.connect(ctx, 0, *streams, false)
	if err != nil {
		return nil, err
	}
	report["connect_ms"] = milliseconds(took)
	report["connect_cpu_ms"] = processes.lap()
	if _, err := c.connect(ctx, *streams, *stalled, true); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "connected")

	watching := (*streams + *services - 1) / *services
	var firsts, medians, lasts []float64
	if *changes > 0 {
		// Warm-up, not counted.
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
		time.Sleep(*pause) // so that the acknowledgements are counted as well
	}
	count := float64(max(*changes, 1))
	report["change_cpu_ms"] = divide(processes.lap(), count)
	report["change_load_cpu_ms"] = milliseconds(ownCPU()-loadBefore) / count
	report["change_pushes"] = float64(c.pushes.Load()-before) / count
	report["first_ms"], report["median_ms"], report["last_ms"] = quantile(firsts, .5), quantile(medians, .5), quantile(lasts, .5)
	report["last_worst_ms"] = quantile(lasts, 1)

	processes.lap()
	var waits []float64
	for number := range *newClients {
		wait, err := c.connect(ctx, *streams+*stalled+number, 1, false)
		if err != nil {
			return nil, err
		}
		waits = append(waits, milliseconds(wait))
	}
	report["new_client_ms"] = quantile(waits, .5)
	report["new_client_cpu_ms"] = divide(processes.lap(), float64(max(*newClients, 1)))
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
