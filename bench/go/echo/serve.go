package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var reply = padded(hostname())

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// padded returns a message of the fixed size.
func padded(text string) *wrapperspb.BytesValue {
	return wrapperspb.Bytes([]byte(fmt.Sprintf("%-*s", size, text)))
}

func text(message *wrapperspb.BytesValue) string {
	return strings.TrimRight(string(message.GetValue()), " ")
}

func unary(answer func() *wrapperspb.BytesValue) grpc.MethodHandler {
	return func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := decode(new(wrapperspb.BytesValue)); err != nil {
			return nil, err
		}
		return answer(), nil
	}
}

func stream(_ any, stream grpc.ServerStream) error {
	for {
		err := stream.RecvMsg(new(wrapperspb.BytesValue))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(reply); err != nil {
			return err
		}
	}
}

// serve answers calls until ctx ends, and for the drain time after that, while clients learn that the endpoint leaves.
func serve(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", ":50051", "address to listen on")
	drain := flags.Duration("drain", 0, "how long to keep serving after SIGTERM")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&service, nil)
	status := health.NewServer()
	healthpb.RegisterHealthServer(server, status)
	go func() {
		<-ctx.Done()
		status.Shutdown()
		time.Sleep(*drain)
		server.GracefulStop()
	}()
	fmt.Println("listening on", listener.Addr())
	return server.Serve(listener)
}
