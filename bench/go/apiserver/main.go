// Command apiserver implements the part of the Kubernetes API that xds-server uses: Services, EndpointSlices, GRPCRoutes
// and GRPCBackendPolicies, LIST in pages, WATCH with bookmarks. Objects are encoded once, so that it adds almost nothing to
// measured times. Statuses that are written are forgotten.
//
// POST /set?address=IP[:PORT] changes the first endpoint of the first service, POST /route?weight=W the weight of its
// backend in the first route, POST /policy?timeout=SECONDS the timeout in the first policy.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

var (
	listen    = flag.String("listen", "127.0.0.1:18002", "address to listen on")
	services  = flag.Int("services", 1, "number of services")
	endpoints = flag.Int("endpoints", 10, "number of endpoints of each service")
	routes    = flag.Int("routes", 0, "number of services that have a GRPCRoute")
	policies  = flag.Int("policies", 0, "number of services that have a GRPCBackendPolicy")
	zones     = flag.Int("zones", 1, "number of zones over which the endpoints are spread")
	hints     = flag.Bool("hints", false, "whether endpoints have hints for the clients of their zone")
)

const (
	sliceSize = 100 // the default of the EndpointSlice controller
	bookmarks = 30 * time.Second
)

// collection holds all objects of a kind, encoded, and their watchers.
type collection struct {
	sync.Mutex
	kind     string
	version  string // of the API group
	items    []json.RawMessage
	revision int
	watchers map[chan []byte]struct{}
}

func (c *collection) update(index int, make func(revision int) any) {
	c.Lock()
	defer c.Unlock()
	c.revision++
	c.items[index] = encode(make(c.revision))
	event := encode(map[string]any{"type": "MODIFIED", "object": c.items[index]})
	for watcher := range c.watchers {
		watcher <- event
	}
}

func (c *collection) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") == "true" {
		c.watch(w, r)
		return
	}
	c.Lock()
	items, revision := slices.Clone(c.items), c.revision
	c.Unlock()
	start, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	size, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		size = len(items)
	}
	end := min(start+size, len(items))
	metadata := map[string]string{"resourceVersion": strconv.Itoa(revision)}
	if end < len(items) {
		metadata["continue"] = strconv.Itoa(end)
	}
	// Written by hand, as json.Marshal would validate each object again.
	fmt.Fprintf(w, `{"kind":"%sList","apiVersion":%q,"metadata":%s,"items":[`, c.kind, c.version, encode(metadata))
	for i, item := range items[start:end] {
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		w.Write(item)
	}
	fmt.Fprint(w, "]}")
}

func (c *collection) watch(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	if err != nil {
		seconds = 300
	}
	events := make(chan []byte, 1000)
	c.Lock()
	c.watchers[events] = struct{}{}
	c.Unlock()
	defer func() {
		c.Lock()
		delete(c.watchers, events)
		c.Unlock()
	}()
	flusher := http.NewResponseController(w)
	flusher.Flush()
	end, tick := time.After(time.Duration(seconds)*time.Second), time.Tick(bookmarks)
	for {
		var event []byte
		select {
		case event = <-events:
		case <-tick:
			c.Lock()
			metadata := map[string]string{"resourceVersion": strconv.Itoa(c.revision)}
			c.Unlock()
			event = encode(map[string]any{"type": "BOOKMARK", "object": map[string]any{"kind": c.kind, "apiVersion": c.version, "metadata": metadata}})
		case <-end:
			return
		case <-r.Context().Done():
			return
		}
		w.Write(append(event, '\n'))
		flusher.Flush()
	}
}

func encode(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		log.Fatal(err)
	}
	return text
}

func metadata(name string, revision int, more map[string]any) map[string]any {
	found := map[string]any{
		"name": name, "namespace": "default", "uid": fmt.Sprintf("00000000-0000-0000-0000-%012x", len(name)),
		"resourceVersion": strconv.Itoa(revision), "creationTimestamp": "2026-01-01T00:00:00Z",
	}
	for key, value := range more {
		found[key] = value
	}
	return found
}

func makeService(number, revision int) any {
	return map[string]any{
		"metadata": metadata(fmt.Sprintf("service-%d", number), revision, nil),
		"spec": map[string]any{
			"clusterIP": "10.96.0.1", "type": "ClusterIP", "ipFamilies": []string{"IPv4"},
			"ports": []any{map[string]any{"name": "grpc", "port": 50051, "protocol": "TCP", "targetPort": 50051}},
		},
	}
}

// makeSlice returns a slice of a service; first, unless empty, is the address of its first endpoint.
func makeSlice(number, from, revision int, first string) any {
	owner, port := fmt.Sprintf("service-%d", number), 50051
	var found []any
	for i := from; i < min(from+sliceSize, *endpoints); i++ {
		count := number**endpoints + i
		ip := fmt.Sprintf("10.%d.%d.%d", count>>16, count>>8&255, count&255)
		if i == 0 && first != "" {
			ip = first
			if host, digits, err := net.SplitHostPort(first); err == nil {
				ip = host
				port, _ = strconv.Atoi(digits)
			}
		}
		zone := fmt.Sprintf("zone-%c", 'a'+i%*zones)
		endpoint := map[string]any{
			"addresses": []string{ip}, "nodeName": fmt.Sprintf("node-%d", i%10), "zone": zone,
			"conditions": map[string]bool{"ready": true, "serving": true, "terminating": false},
			"targetRef": map[string]string{"kind": "Pod", "namespace": "default", "name": fmt.Sprintf("%s-%d", owner, i),
				"uid": fmt.Sprintf("00000000-0000-0000-0000-%012x", count)},
		}
		if *hints {
			endpoint["hints"] = map[string]any{"forZones": []any{map[string]string{"name": zone}}}
		}
		found = append(found, endpoint)
	}
	labels := map[string]string{"kubernetes.io/service-name": owner, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
	return map[string]any{
		"metadata":    metadata(fmt.Sprintf("%s-%d", owner, from/sliceSize), revision, map[string]any{"labels": labels}),
		"addressType": "IPv4", "endpoints": found,
		"ports": []any{map[string]any{"name": "grpc", "port": port, "protocol": "TCP"}},
	}
}

// makeRoute splits the requests to a service between itself and the next one.
func makeRoute(number, revision, weight int) any {
	backend := func(number, weight int) any {
		return map[string]any{"name": fmt.Sprintf("service-%d", number), "port": 50051, "weight": weight}
	}
	return map[string]any{
		"metadata": metadata(fmt.Sprintf("route-%d", number), revision, map[string]any{"generation": revision}),
		"spec": map[string]any{
			"parentRefs": []any{map[string]any{"group": "", "kind": "Service", "name": fmt.Sprintf("service-%d", number)}},
			"rules": []any{map[string]any{
				"backendRefs": []any{backend(number, weight), backend((number+1)%*services, 100)},
			}},
		},
	}
}

func makePolicy(number, revision, timeout int) any {
	return map[string]any{
		"metadata": metadata(fmt.Sprintf("policy-%d", number), revision, map[string]any{"generation": revision}),
		"spec": map[string]any{
			"targetRefs": []any{map[string]any{"group": "", "kind": "Service", "name": fmt.Sprintf("service-%d", number)}},
			"timeout":    fmt.Sprintf("%ds", timeout), "maxConcurrentRequests": 1000,
			"retry": map[string]any{"codes": []string{"UNAVAILABLE"}, "attempts": 2},
		},
	}
}

func newCollection(kind, version string) *collection {
	return &collection{kind: kind, version: version, revision: 1, watchers: map[chan []byte]struct{}{}}
}

func main() {
	flag.Parse()
	all, endpointSlices := newCollection("Service", "v1"), newCollection("EndpointSlice", "discovery.k8s.io/v1")
	grpcRoutes := newCollection("GRPCRoute", "gateway.networking.k8s.io/v1")
	backendPolicies := newCollection("GRPCBackendPolicy", "proxyless-grpc-lb.dev/v1alpha1")
	for number := range *routes {
		grpcRoutes.items = append(grpcRoutes.items, encode(makeRoute(number, 1, 900)))
	}
	for number := range *policies {
		backendPolicies.items = append(backendPolicies.items, encode(makePolicy(number, 1, 10)))
	}
	for number := range *services {
		all.items = append(all.items, encode(makeService(number, 1)))
		for from := 0; from < *endpoints; from += sliceSize {
			endpointSlices.items = append(endpointSlices.items, encode(makeSlice(number, from, 1, "")))
		}
	}
	http.HandleFunc("GET /api/v1/services", all.serve)
	http.HandleFunc("GET /apis/discovery.k8s.io/v1/endpointslices", endpointSlices.serve)
	http.HandleFunc("POST /set", func(_ http.ResponseWriter, r *http.Request) {
		address := r.URL.Query().Get("address")
		endpointSlices.update(0, func(revision int) any { return makeSlice(0, 0, revision, address) })
	})
	if *routes > 0 {
		http.HandleFunc("GET /apis/gateway.networking.k8s.io/v1/grpcroutes", grpcRoutes.serve)
	}
	if *policies > 0 {
		http.HandleFunc("GET /apis/proxyless-grpc-lb.dev/v1alpha1/grpcbackendpolicies", backendPolicies.serve)
	}
	http.HandleFunc("POST /route", func(_ http.ResponseWriter, r *http.Request) {
		weight, _ := strconv.Atoi(r.URL.Query().Get("weight"))
		grpcRoutes.update(0, func(revision int) any { return makeRoute(0, revision, weight) })
	})
	http.HandleFunc("POST /policy", func(_ http.ResponseWriter, r *http.Request) {
		timeout, _ := strconv.Atoi(r.URL.Query().Get("timeout"))
		backendPolicies.update(0, func(revision int) any { return makePolicy(0, revision, timeout) })
	})
	http.HandleFunc("GET /", http.NotFound) // kinds that there are not
	http.HandleFunc("PATCH /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	http.HandleFunc("POST /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	socket, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening")
	log.Fatal(http.Serve(socket, nil))
}
