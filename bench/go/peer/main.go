// Command peer is a control plane based on envoyproxy/go-control-plane, the library that most control planes use, to
// compare xds-server with. It is the best case: one snapshot for all clients, no discovery, and a change only makes a
// new version of the endpoints.
//
// POST /set?address=IP changes the first endpoint of the first service.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var (
	listen    = flag.String("listen", "127.0.0.1:18000", "address to serve xDS on")
	control   = flag.String("control", "127.0.0.1:18001", "address to accept changes on")
	services  = flag.Int("services", 1, "number of services")
	endpoints = flag.Int("endpoints", 10, "number of endpoints of each service")
	tlsFolder = flag.String("tls", "", "serve with mutual TLS, with the tls.crt, tls.key and ca.crt in this folder")
)

const allNodes = "all"

type oneSnapshot struct{}

func (oneSnapshot) ID(*core.Node) string { return allNodes }

// state holds the resources of the snapshot.
type state struct {
	sync.Mutex
	byType    map[resource.Type][]types.Resource
	version   int
	snapshots cache.SnapshotCache
}

func newState() *state {
	// Without ADS ordering: with it, a snapshot is held back until a client has subscribed to all of it.
	s := &state{byType: map[resource.Type][]types.Resource{}, snapshots: cache.NewSnapshotCache(false, oneSnapshot{}, nil)}
	add := func(kind resource.Type, one types.Resource) { s.byType[kind] = append(s.byType[kind], one) }
	for number := range *services {
		name := fmt.Sprintf("service-%d.default:50051", number)
		add(resource.ListenerType, makeListener(name))
		add(resource.RouteType, makeRoute(name))
		add(resource.ClusterType, makeCluster(name))
		add(resource.EndpointType, makeAssignment(name, number, ""))
	}
	return s
}

// set replaces the address of the first endpoint of the first service, unless it is empty, and sets the snapshot.
func (s *state) set(address string) error {
	s.Lock()
	defer s.Unlock()
	s.version++
	if address != "" {
		s.byType[resource.EndpointType][0] = makeAssignment("service-0.default:50051", 0, address)
	}
	snapshot := &cache.Snapshot{}
	for kind, found := range s.byType {
		version := "1"
		if kind == resource.EndpointType {
			version = strconv.Itoa(s.version)
		}
		snapshot.Resources[cache.GetResponseType(kind)] = cache.NewResources(version, found)
	}
	return s.snapshots.SetSnapshot(context.Background(), allNodes, snapshot)
}

func makeListener(name string) *listener.Listener {
	manager := &hcm.HttpConnectionManager{
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{RouteConfigName: name, ConfigSource: overADS()}},
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: wrap(&router.Router{})},
		}},
	}
	return &listener.Listener{Name: name, ApiListener: &listener.ApiListener{ApiListener: wrap(manager)}}
}

func makeRoute(name string) *route.RouteConfiguration {
	action := &route.RouteAction{ClusterSpecifier: &route.RouteAction_Cluster{Cluster: name}}
	return &route.RouteConfiguration{Name: name, VirtualHosts: []*route.VirtualHost{{
		Name: name, Domains: []string{"*"}, Routes: []*route.Route{{
			Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: ""}},
			Action: &route.Route_Route{Route: action},
		}},
	}}}
}

func makeCluster(name string) *cluster.Cluster {
	return &cluster.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: overADS(), ServiceName: name},
	}
}

func makeAssignment(name string, number int, first string) *endpoint.ClusterLoadAssignment {
	zone := &endpoint.LocalityLbEndpoints{
		Locality:            &core.Locality{Zone: "zone-a"},
		LoadBalancingWeight: wrapperspb.UInt32(uint32(*endpoints)),
	}
	for i := range *endpoints {
		count := number**endpoints + i
		ip := fmt.Sprintf("10.%d.%d.%d", count>>16, count>>8&255, count&255)
		if i == 0 && first != "" {
			ip = first
		}
		address := &core.SocketAddress{Address: ip, PortSpecifier: &core.SocketAddress_PortValue{PortValue: 50051}}
		zone.LbEndpoints = append(zone.LbEndpoints, &endpoint.LbEndpoint{
			HealthStatus: core.HealthStatus_HEALTHY,
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{
				Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: address}}}},
		})
	}
	return &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{zone}}
}

func overADS() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}

func wrap(message proto.Message) *anypb.Any {
	wrapped, err := anypb.New(message)
	if err != nil {
		log.Fatal(err)
	}
	return wrapped
}

// encryption reads what a server needs that asks its clients for certificates.
func encryption(folder string) credentials.TransportCredentials {
	pair, err := tls.LoadX509KeyPair(folder+"/tls.crt", folder+"/tls.key")
	if err != nil {
		log.Fatal(err)
	}
	authorities, err := os.ReadFile(folder + "/ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authorities)
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert})
}

func main() {
	flag.Parse()
	state := newState()
	if err := state.set(""); err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /set", func(w http.ResponseWriter, r *http.Request) {
		if err := state.set(r.URL.Query().Get("address")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	socket, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.ListenAndServe(*control, nil)) }()
	options := []grpc.ServerOption{}
	if *tlsFolder != "" {
		options = append(options, grpc.Creds(encryption(*tlsFolder)))
	}
	grpcServer := grpc.NewServer(options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, server.NewServer(context.Background(), state.snapshots, nil))
	fmt.Println("listening")
	log.Fatal(grpcServer.Serve(socket))
}
