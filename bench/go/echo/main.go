// Command echo is both ends of a workload: `echo serve` answers calls and tells which host it is, `echo call` makes
// them through any target of gRPC's and reports what became of them as a line of JSON.
//
// Messages are google.protobuf.BytesValue both ways, so that callers in any language need no code of their own.
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
	exitMethod = "/bench.Echo/Exit" // at once, as a program that crashes
	size       = 100                // bytes of a message
)

// service tells gRPC what the server has; streams answer each message as a call is answered.
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
