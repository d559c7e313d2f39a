// A gRPC client in Go, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"interop/greeter"
)

type command struct {
	Do              string            `json:"do"`
	Channel         string            `json:"channel"`
	Target          string            `json:"target"`
	IdleSeconds     *float64          `json:"idle_seconds"`
	Times           int               `json:"times"`
	Concurrency     int               `json:"concurrency"`
	Parallelism     int               `json:"parallelism"`
	IntervalSeconds float64           `json:"interval_seconds"`
	Method          string            `json:"method"`
	Name            string            `json:"name"`
	Port            int               `json:"port"`
	Metadata        map[string]string `json:"metadata"`
	TimeoutSeconds  float64           `json:"timeout_seconds"`
	WaitForReady    bool              `json:"wait_for_ready"`
}

type failure struct {
	Code         string  `json:"code"`
	Details      string  `json:"details"`
	Milliseconds float64 `json:"milliseconds"`
}

// A call that has ended: the host that replied, or the failure.
type result struct {
	host         string
	failure      *failure
	milliseconds float64
}

type load struct {
	stop    chan struct{}
	results chan []result
}

// The names of the codes in the other languages.
var names = map[codes.Code]string{
	codes.Canceled:          "CANCELLED",
	codes.DeadlineExceeded:  "DEADLINE_EXCEEDED",
	codes.Internal:          "INTERNAL",
	codes.PermissionDenied:  "PERMISSION_DENIED",
	codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.Unavailable:       "UNAVAILABLE",
}

var channels = map[string]*grpc.ClientConn{}
var loads = map[string]load{}

func main() {
	defer func() {
		for _, channel := range channels {
			channel.Close()
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		answer, err := perform(lines.Bytes())
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		answers.Encode(answer)
	}
}

func perform(line []byte) (map[string]any, error) {
	var c command
	if err := json.Unmarshal(line, &c); err != nil {
		return nil, err
	}
	switch c.Do {
	case "open":
		return map[string]any{}, open(c)
	case "serve":
		return map[string]any{}, serve(c)
	}
	channel, found := channels[c.Channel]
	if !found {
		return nil, fmt.Errorf("there is no channel %q", c.Channel)
	}
	switch c.Do {
	case "call":
		return call(channel, c), nil
	case "load_start":
		loads[c.Channel] = startLoad(channel, c)
		return map[string]any{}, nil
	case "load_stop":
		return stopLoad(loads[c.Channel]), nil
	case "close":
		delete(channels, c.Channel)
		return map[string]any{}, channel.Close()
	}
	return nil, fmt.Errorf("there is no command %q", c.Do)
}

func open(c command) error {
	// Encrypts if the control plane says so.
	encryption, err := xdscreds.NewClientCredentials(
		xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(encryption)}
	if c.IdleSeconds != nil {
		options = append(options, grpc.WithIdleTimeout(seconds(*c.IdleSeconds)))
	}
	channel, err := grpc.NewClient(c.Target, options...)
	if err == nil {
		channels[c.Channel] = channel
	}
	return err
}

type greeterServer struct {
	greeter.UnimplementedGreeterServer
	name string
}

func (s greeterServer) SayHello(context.Context, *greeter.SayHelloRequest) (*greeter.SayHelloResponse, error) {
	return &greeter.SayHelloResponse{Message: "Hello", Hostname: s.name}, nil
}

// Serves a greeter as the control plane says, until the program ends.
func serve(c command) error {
	encryption, err := xdscreds.NewServerCredentials(
		xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	server, err := xds.NewGRPCServer(grpc.Creds(encryption))
	if err != nil {
		return err
	}
	greeter.RegisterGreeterServer(server, greeterServer{name: c.Name})
	listener, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", c.Port))
	if err != nil {
		return err
	}
	go server.Serve(listener)
	return nil
}

func call(channel *grpc.ClientConn, c command) map[string]any {
	tickets := make(chan struct{}, c.Times)
	for range c.Times {
		tickets <- struct{}{}
	}
	close(tickets)
	results := inParallel(c.Concurrency, func(keep func(result)) {
		for range tickets {
			keep(callOnce(channel, c))
		}
	})
	hosts, failures, milliseconds := []string{}, []failure{}, []float64{}
	for _, r := range results {
		milliseconds = append(milliseconds, r.milliseconds)
		if r.failure != nil {
			failures = append(failures, *r.failure)
		} else {
			hosts = append(hosts, r.host)
		}
	}
	return map[string]any{"hosts": hosts, "failures": failures, "milliseconds": milliseconds}
}

func startLoad(channel *grpc.ClientConn, c command) load {
	l := load{make(chan struct{}), make(chan []result, 1)}
	go func() {
		l.results <- inParallel(c.Parallelism, func(keep func(result)) {
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(seconds(c.IntervalSeconds)):
					keep(callOnce(channel, c))
				}
			}
		})
	}()
	return l
}

func stopLoad(l load) map[string]any {
	close(l.stop)
	hosts, failures, slowest := map[string]int{}, []failure{}, 0.0
	for _, r := range <-l.results {
		slowest = max(slowest, r.milliseconds)
		if r.failure != nil {
			failures = append(failures, *r.failure)
		} else {
			hosts[r.host]++
		}
	}
	return map[string]any{"hosts": hosts, "failures": failures, "slowest": slowest}
}

// Runs several of a worker and returns the results that they keep.
func inParallel(parallelism int, work func(keep func(result))) []result {
	var results []result
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range parallelism {
		workers.Go(func() {
			work(func(r result) {
				lock.Lock()
				defer lock.Unlock()
				results = append(results, r)
			})
		})
	}
	workers.Wait()
	return results
}

// Makes one call. Any method takes these messages, so that routes by method can be told apart.
func callOnce(channel *grpc.ClientConn, c command) result {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), seconds(c.TimeoutSeconds))
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(c.Metadata))
	reply := new(greeter.SayHelloResponse)
	err := channel.Invoke(ctx, c.Method, &greeter.SayHelloRequest{Name: "Go"}, reply, grpc.WaitForReady(c.WaitForReady))
	milliseconds := float64(time.Since(began).Microseconds()/100) / 10
	if err == nil {
		return result{reply.Hostname, nil, milliseconds}
	}
	found := status.Convert(err)
	name := names[found.Code()]
	if name == "" {
		name = found.Code().String()
	}
	return result{"", &failure{name, found.Message(), milliseconds}, milliseconds}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second))
}
