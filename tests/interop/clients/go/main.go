// A gRPC client in Go, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"

	"interop/greeter"
)

type command struct {
	Do             string   `json:"do"`
	Channel        string   `json:"channel"`
	Target         string   `json:"target"`
	IdleSeconds    *float64 `json:"idle_seconds"`
	Times          int      `json:"times"`
	TimeoutSeconds float64  `json:"timeout_seconds"`
	WaitForReady   bool     `json:"wait_for_ready"`
}

type failure struct {
	Code    string `json:"code"`
	Details string `json:"details"`
}

// The names of the codes in the other languages.
var names = map[codes.Code]string{
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.Unavailable:      "UNAVAILABLE",
}

var channels = map[string]*grpc.ClientConn{}

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
	if c.Do == "open" {
		return map[string]any{}, open(c)
	}
	channel, found := channels[c.Channel]
	if !found {
		return nil, fmt.Errorf("there is no channel %q", c.Channel)
	}
	switch c.Do {
	case "call":
		return call(channel, c), nil
	case "close":
		delete(channels, c.Channel)
		return map[string]any{}, channel.Close()
	}
	return nil, fmt.Errorf("there is no command %q", c.Do)
}

func open(c command) error {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if c.IdleSeconds != nil {
		options = append(options, grpc.WithIdleTimeout(seconds(*c.IdleSeconds)))
	}
	channel, err := grpc.NewClient(c.Target, options...)
	if err == nil {
		channels[c.Channel] = channel
	}
	return err
}

func call(channel *grpc.ClientConn, c command) map[string]any {
	stub := greeter.NewGreeterClient(channel)
	hosts, failures := []string{}, []failure{}
	for range c.Times {
		ctx, cancel := context.WithTimeout(context.Background(), seconds(c.TimeoutSeconds))
		reply, err := stub.SayHello(ctx, &greeter.SayHelloRequest{Name: "Go"}, grpc.WaitForReady(c.WaitForReady))
		cancel()
		if err != nil {
			found := status.Convert(err)
			name := names[found.Code()]
			if name == "" {
				name = found.Code().String()
			}
			failures = append(failures, failure{name, found.Message()})
		} else {
			hosts = append(hosts, reply.Hostname)
		}
	}
	return map[string]any{"hosts": hosts, "failures": failures}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second))
}
