// Command echo is both ends of a workload: `echo serve` answers calls with its host name, `echo call` calls any gRPC
// target and reports the results as a line of JSON.
//
// Requests and replies are google.protobuf.BytesValue, so that callers in any language need no generated code.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	callMethod = "/bench.Echo/Call"
	exitMethod = "/bench.Echo/Exit" // exits at once, like a crash
	size       = 100                // bytes of a message
)

// service describes the methods; the stream replies to each message as the unary method does.
var service = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	Methods: []grpc.MethodDesc{
		{MethodName: "Call", Handler: unary(func() *wrapperspb.BytesValue { return reply })},
		{MethodName: "Exit", Handler: unary(func() *wrapperspb.BytesValue { os.Exit(1); return nil })},
	},
	Streams: []grpc.StreamDesc{{StreamName: "Stream", Handler: stream, ServerStreams: true, ClientStreams: true}},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if len(os.Args) < 2 {
		log.Fatal("usage: echo serve|call [flags]")
	}
	switch command, arguments := os.Args[1], os.Args[2:]; command {
	case "serve":
		if err := serve(ctx, arguments); err != nil {
			log.Fatal(err)
		}
	case "call":
		report, err := call(ctx, arguments)
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatal(fmt.Errorf("unknown command %q", command))
	}
}
