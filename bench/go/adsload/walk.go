package main

import (
	"fmt"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
)

const (
	listenerType  = resource.ListenerType
	routeType     = resource.RouteType
	clusterType   = resource.ClusterType
	endpointsType = resource.EndpointType
)

// walk subscribes on one stream to the resources from a Listener to its endpoints, as a gRPC client does.
type walk struct {
	call  discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	names map[string]string // the subscribed name, by type
	node  *core.Node        // sent only with the first request
}

func (w *walk) subscribe(kind, name string) error {
	if w.names[kind] == name {
		return nil
	}
	w.names[kind] = name
	return w.send(&discovery.DiscoveryRequest{TypeUrl: kind})
}

func (w *walk) send(request *discovery.DiscoveryRequest) error {
	request.ResourceNames, request.Node = []string{w.names[request.TypeUrl]}, w.node
	w.node = nil
	return w.call.Send(request)
}

// take acknowledges a response and subscribes to the resources that it names.
func (w *walk) take(response *discovery.DiscoveryResponse) error {
	acknowledgement := &discovery.DiscoveryRequest{
		TypeUrl: response.TypeUrl, VersionInfo: response.VersionInfo, ResponseNonce: response.Nonce}
	if err := w.send(acknowledgement); err != nil {
		return err
	}
	for _, resource := range response.Resources {
		kind, name, err := next(response.TypeUrl, resource.Value)
		if err != nil {
			return err
		}
		if kind != "" {
			if err := w.subscribe(kind, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// next returns the type and name of the resource that a resource leads to, or "" for endpoints.
func next(kind string, body []byte) (string, string, error) {
	switch kind {
	case listenerType:
		var found listener.Listener
		var manager hcm.HttpConnectionManager
		if err := proto.Unmarshal(body, &found); err != nil {
			return "", "", err
		}
		if err := proto.Unmarshal(found.GetApiListener().GetApiListener().GetValue(), &manager); err != nil {
			return "", "", err
		}
		if inline := manager.GetRouteConfig(); inline != nil {
			return clusterType, clusterOf(inline), nil
		}
		return routeType, manager.GetRds().GetRouteConfigName(), nil
	case routeType:
		var found route.RouteConfiguration
		err := proto.Unmarshal(body, &found)
		return clusterType, clusterOf(&found), err
	case clusterType:
		var found cluster.Cluster
		err := proto.Unmarshal(body, &found)
		if name := found.GetEdsClusterConfig().GetServiceName(); name != "" {
			return endpointsType, name, err
		}
		return endpointsType, found.GetName(), err
	case endpointsType:
		return "", "", nil
	}
	return "", "", fmt.Errorf("unknown type %q", kind)
}

// clusterOf returns the first cluster of the first route.
func clusterOf(configuration *route.RouteConfiguration) string {
	action := configuration.GetVirtualHosts()[0].GetRoutes()[0].GetRoute()
	if clusters := action.GetWeightedClusters().GetClusters(); len(clusters) > 0 {
		return clusters[0].GetName()
	}
	return action.GetCluster()
}
