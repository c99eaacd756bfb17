package nft

// FieldKind says what a Field reads.
type FieldKind uint8

// The kinds of fields. The comment gives nft's word and the type of the value.
const (
	SAddr        FieldKind = iota // ip saddr / ip6 saddr: ipv4_addr / ipv6_addr
	DAddr                         // ip daddr / ip6 daddr
	L4Proto                       // meta l4proto: inet_proto
	DPort                         // th dport: inet_service
	TCPDPort                      // tcp dport, for "tcp dport set"
	UDPDPort                      // udp dport
	SCTPDPort                     // sctp dport
	Random                        // numgen random mod N: integer, host byte order
	Hash                          // jhash over client and front end, mod 2^32-1, seed N: integer, host byte order
	Turn                          // numgen inc mod N, the next number at each packet: integer, host byte order
	SourceHash                    // jhash over the source address, mod N, seed 1: integer, host byte order
	Priority                      // meta priority: classid, host byte order
	Verdicts                      // the data of a verdict map
	UnknownField                  // found in the kernel, not ours; we never make one
)

// A Field is one part of a key or of a value.
type Field struct {
	Kind FieldKind
	// N is the modulus of Random, Turn and SourceHash and the seed of Hash; 0 for all others.
	N uint32
}

// FrontEndKey is the key that finds a front end: destination address, protocol and port.
func FrontEndKey(more ...Field) []Field {
	return append([]Field{{Kind: DAddr}, {Kind: L4Proto}, {Kind: DPort}}, more...)
}

// NodePortKey is the key that finds a node port: protocol and port.
func NodePortKey(more ...Field) []Field {
	return append([]Field{{Kind: L4Proto}, {Kind: DPort}}, more...)
}

// Computed reports whether the field is a number that the kernel makes, and so an integer in a key.
func (k Field) Computed() bool {
	return k.Kind == Random || k.Kind == Hash || k.Kind == Turn || k.Kind == SourceHash
}

// EndpointData is the value that a dnat statement takes: address and port.
func EndpointData() []Field { return []Field{{Kind: DAddr}, {Kind: DPort}} }
