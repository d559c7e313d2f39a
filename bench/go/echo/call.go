package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	_ "google.golang.org/grpc/xds"
)

const roundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`

// bucket is an interval: how many calls that began in it were answered by which host, and how many failed.
type bucket struct {
	At     float64        `json:"at"` // Unix time of its begin, in seconds
	Hosts  map[string]int `json:"hosts"`
	Failed int            `json:"failed"`
}

// report is the result of all calls.
type report struct {
	Seconds  float64        `json:"seconds"`
	Requests int            `json:"requests"` // answered ones
	Failures map[string]int `json:"failures"` // by code
	Hosts    map[string]int `json:"hosts"`
	P50      float64        `json:"p50_ms"`
	P99      float64        `json:"p99_ms"`
	CPU      float64        `json:"cpu_seconds"` // of this program
	WarmUp   int            `json:"warm_up"`     // requests of the warm-up, not counted above
	Timeline []bucket       `json:"timeline,omitempty"`
}

// outcome is the result of a call.
type outcome struct {
	began time.Time
	took  time.Duration
	host  string
	code  string // of a failure
}

type caller struct {
	connection *grpc.ClientConn
	timeout    time.Duration
}

func (c *caller) call(method string) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	request, answer, began := padded(""), new(wrapperspb.BytesValue), time.Now()
	if err := c.connection.Invoke(ctx, method, request, answer); err != nil {
		return outcome{began: began, code: status.Code(err).String()}
	}
	return outcome{began: began, took: time.Since(began), host: text(answer)}
}

// inParallel keeps this number of calls in flight.
func (c *caller) inParallel(ctx context.Context, concurrency int) []outcome {
	found := make([][]outcome, concurrency)
	var group sync.WaitGroup
	for worker := range concurrency {
		group.Go(func() {
			for ctx.Err() == nil {
				found[worker] = append(found[worker], c.call(callMethod))
			}
		})
	}
	group.Wait()
	return slices.Concat(found...)
}

// steadily begins this number of calls a second and does not wait for earlier ones.
func (c *caller) steadily(ctx context.Context, rate int) []outcome {
	var found []outcome
	var group sync.WaitGroup
	outcomes := make(chan outcome, rate)
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for one := range outcomes {
			found = append(found, one)
		}
	}()
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for ctx.Err() == nil {
		group.Go(func() { outcomes <- c.call(callMethod) })
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	group.Wait()
	close(outcomes)
	<-collected
	return found
}

func call(ctx context.Context, arguments []string) (*report, error) {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	target := flags.String("target", "localhost:50051", "the target to call")
	spread := flags.Bool("round-robin", false, "round robin over all addresses of the target, by service config")
	concurrency := flags.Int("concurrency", 1, "number of calls in flight")
	rate := flags.Int("rate", 0, "calls begun a second, instead of -concurrency; adds a timeline to the report")
	width := flags.Duration("bucket", 250*time.Millisecond, "width of a bucket of the timeline")
	duration := flags.Duration("duration", 5*time.Second, "how long to call")
	warmup := flags.Duration("warm-up", time.Second, "how long to call before that, not counted")
	timeout := flags.Duration("timeout", 5*time.Second, "timeout of a call")
	crash := flags.Duration("crash-every", 0, "interval at which to crash the replica that the next call reaches")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if *spread {
		options = append(options, grpc.WithDefaultServiceConfig(roundRobin))
	}
	connection, err := grpc.NewClient(*target, options...)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	c := &caller{connection, *timeout}
	run := func(duration time.Duration) []outcome {
		ctx, cancel := context.WithTimeout(ctx, duration)
		defer cancel()
		if *rate > 0 {
			return c.steadily(ctx, *rate)
		}
		return c.inParallel(ctx, *concurrency)
	}
	warm := run(*warmup)
	if len(warm) > 0 && warm[len(warm)-1].code != "" {
		return nil, fmt.Errorf("%s: %s", *target, warm[len(warm)-1].code)
	}
	began, cpu := time.Now(), ownCPU()
	if *crash > 0 {
		crashes := time.NewTicker(*crash)
		defer crashes.Stop()
		go func() {
			for range crashes.C {
				c.call(exitMethod) // fails, as the replica crashes
			}
		}()
	}
	found := run(*duration)
	result := summary(found)
	result.WarmUp = len(warm)
	result.Seconds, result.CPU = time.Since(began).Seconds(), (ownCPU() - cpu).Seconds()
	if *rate > 0 {
		result.Timeline = timeline(found, *width)
	}
	return result, nil
}

func summary(found []outcome) *report {
	result := &report{Failures: map[string]int{}, Hosts: map[string]int{}}
	var times []time.Duration
	for _, one := range found {
		if one.code != "" {
			result.Failures[one.code]++
			continue
		}
		result.Hosts[one.host]++
		times = append(times, one.took)
	}
	slices.Sort(times)
	result.Requests = len(times)
	result.P50, result.P99 = quantile(times, .5), quantile(times, .99)
	return result
}

func timeline(found []outcome, width time.Duration) []bucket {
	buckets := map[int64]*bucket{}
	for _, one := range found {
		number := one.began.UnixNano() / int64(width)
		if buckets[number] == nil {
			buckets[number] = &bucket{At: float64(number) * width.Seconds(), Hosts: map[string]int{}}
		}
		if one.code != "" {
			buckets[number].Failed++
		} else {
			buckets[number].Hosts[one.host]++
		}
	}
	result := make([]bucket, 0, len(buckets))
	for _, one := range buckets {
		result = append(result, *one)
	}
	slices.SortFunc(result, func(a, b bucket) int { return cmp.Compare(a.At, b.At) })
	return result
}

// quantile returns a quantile of sorted times, in milliseconds.
func quantile(times []time.Duration, q float64) float64 {
	if len(times) == 0 {
		return 0
	}
	return float64(times[int(q*float64(len(times)-1)+.5)].Microseconds()) / 1000
}

func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
