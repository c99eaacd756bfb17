package plan

// The sets and maps. Their order here is the order in which they are made and listed.
const (
	setServices         = "services"
	setExternal         = "external-services"
	setExternalLocal    = "external-local-services"
	setNodePorts        = "nodeports"
	setNodePort         = "nodeport-services"
	setNodePortLocal    = "nodeport-local-services"
	setEndpoints        = "endpoints"
	setLocalEndpoints   = "local-endpoints"
	setNodePortEnds     = "nodeport-endpoints"
	setNodePortLocals   = "nodeport-local-endpoints"
	setNoEndpoints      = "no-endpoints"
	setNoNodePortEnds   = "no-endpoint-nodeports"
	setFirewall         = "firewall"
	setSourceRanges     = "source-ranges"
	setClusterIPs       = "cluster-ips"
	setNodePortIPs      = "nodeport-ips"
	setHairpin          = "hairpin"
	setAffinity         = "affinity"
	setAffinityServices = "affinity-services"
	setAffinityLocals   = "affinity-local-services"
	setAffinitySlots    = "affinity-slots"
	setAffinityLSlots   = "affinity-local-slots"
	setAffinityEnds     = "affinity-endpoints"
	setAffinityLEnds    = "affinity-local-endpoints"
	setAffinityFronts   = "affinity-front-ends"
	setAffinityNodeIPs  = "affinity-nodeport-ips"
	setAffinityNodePort = "affinity-nodeport-ports"
)

// The chains that do not depend on a number of endpoints.
const (
	chainServices          = "services"
	chainExternal          = "external"
	chainExternalLocal     = "external-local"
	chainNodePort          = "nodeport"
	chainNodePortLocal     = "nodeport-local"
	chainExternalAffinity  = "external-affinity"
	chainExternalLAffinity = "external-local-affinity"
	chainNodePortAffinity  = "nodeport-affinity"
	chainNodePortLAffinity = "nodeport-local-affinity"
	chainRefuse            = "refuse"
	chainUnserved          = "unserved"
	chainCheckEndpoints    = "check-endpoints"
	chainFirewall          = "check-source-ranges"
)
