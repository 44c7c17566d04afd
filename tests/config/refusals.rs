//! One wrong thing at a time, and the line that says so.

/// A fragment of the good configuration, what stands in its place, and what is said after `r.yaml:`.
pub const REFUSALS: &[(&str, &str, &str)] = &[
    // Keys and shape.
    ("  name: edge1", "  nmae: edge1", r#"2:3: unknown key "nmae"; did you mean "name"? (name: web-1)"#),
    ("  name: edge1\n", "", r#"2:3: missing key "name"; add it: name: web-1"#),
    (
        "  name: edge1",
        "  name: edge1\n  colour: red",
        r#"3:3: unknown key "colour"; the keys here are name, level, tunnel_addresses, tunnel_source_prefixes, parents, gue_port, time_zone, route_cost"#,
    ),
    ("weight: 10", "wieght: 10", r#"28:42: unknown key "wieght"; did you mean "weight"? (weight: 10)"#),
    ("source: { v4: 24 }", "source: { v5: 24 }", r#"27:23: unknown key "v5"; did you mean "v4"? (v4: 24)"#),
    (
        "udp: 30s",
        "icmp: 30s",
        r#"13:41: unknown key "icmp"; the keys here are tcp_syn, tcp_established, tcp_fin, tcp_rst, udp, other"#,
    ),
    (
        "memory: 512MiB",
        "memory: 512MiB, memory: 1GiB",
        r#"4:25: key "memory" is given twice in one map; keep one of them"#,
    ),
    (
        "\nchildren:\n",
        "\nchildern:\n",
        r#"15:1: unknown key "childern"; did you mean "children"? (children: [{ name: server1, address: 10.0.1.1 }])"#,
    ),
    (
        "metrics: {",
        "metrisc: {",
        r#"29:1: unknown key "metrisc"; did you mean "metrics"? (metrics: { listen: 127.0.0.1:9477 })"#,
    ),
    (
        "metrics: {",
        "colour: {",
        r#"29:1: unknown key "colour"; the keys here are router, dpdk, workers, ports, routes, forwarding, shortcuts, neighbours, flows, cluster, geoip, client_regions, children, virtual_hosts, metrics, control, parents, recovery, pair"#,
    ),
    (
        "children:\n  - { name: server1, address: 10.0.1.11 }\n  - { name: server2, address: 10.0.1.12 }\n  - { name: server3, address: 10.9.9.13 }\n",
        "",
        r#"26:1: missing key "children"; add it: children: [{ name: server1, address: 10.0.1.1 }]"#,
    ),
    ("    children: [server1, server2]\n", "", r#"22:5: missing key "children"; add it: children: [server1]"#),
    (
        "flow: { source: { v4: 24 } }",
        "flow: [source]",
        "27:11: a word or a map is expected here, not a list; write it like flow: 5-tuple, tunnel: gre, health: tcp or children: [server1, { name: server2, weight: 10 }]",
    ),
    (
        "flow: { source: { v4: 24 } }",
        "flow: { source: 24 }",
        "27:21: a map is expected here; write it in braces or with one key a line: source: { v4: 24, v6: 56 }",
    ),
    (
        "capacity_v4: 1000",
        "capacity_v4: { a: 1 }",
        "13:23: a single value is expected here, not a list or a map: capacity_v4: 1000000",
    ),
    (
        "  - { name: farm, device",
        "  - farm\n  - { name: b, device",
        "8:5: a map is expected here; write it in braces or with one key a line: { name: server1 }",
    ),
    ("[198.51.100.81]", "[198.51.100.81, 198.51.100.82, null]", "25:47: the value is missing; write one"),
    ("name: edge1", "name: [edge1]", "2:9: a single value is expected here, not a list or a map: name: web-1"),
    ("name: edge1", "name:", "2:7: the value is missing; write one: name: web-1"),
    (
        "tunnel_addresses: [192.0.2.1]",
        "tunnel_addresses: 192.0.2.1",
        r#"3:21: a list is expected here; write it in brackets or with one "- " a line: tunnel_addresses: [192.0.2.1]"#,
    ),
    (
        "dpdk: { memory: 512MiB }",
        "dpdk: 512MiB",
        "4:7: a map is expected here; write it in braces or with one key a line: dpdk: { hugepages: auto }",
    ),
    (
        "children: [server1, server2]",
        "children: [[server1]]",
        "23:16: a word or a map is expected here, not a list; write it like flow: 5-tuple, tunnel: gre, health: tcp or children: [server1, { name: server2, weight: 10 }]",
    ),
    (
        "children: [server1, server2]",
        "children: [1]",
        r#"23:16: this reads as the value 1; put it in quotes to make it a word, like "1" or "no""#,
    ),
    (
        "children: [server1, server2]",
        "children: [no]",
        r#"23:16: this reads as the value false; put it in quotes to make it a word, like "1" or "no""#,
    ),
    (
        "children: [server1, server2]",
        "children: [server1, server2",
        "24:9: not valid YAML: illegal placement of ':' indicator; check the indentation, brackets and quotes before this place",
    ),
    (
        "name: edge1",
        "name: *edge1",
        r#"2:9: this alias has no anchor; put the anchor before it (&farm) or quote a value that starts with "*""#,
    ),
    (
        "name: edge1",
        "name: !ruby edge1",
        r#"2:15: YAML tags have no meaning here; leave out the word that starts with "!""#,
    ),
    (
        "{ name: server2, weight: 10 }",
        "{ <<: { name: server2 } }",
        r#"28:27: "<<" has no meaning here; write the keys out, or share a whole value: children: &all [server1], children: *all"#,
    ),
    (
        "metrics:",
        "---\nmetrics:",
        r#"30:1: a second YAML document starts here; keep one document: remove the line "---" and what is not wanted"#,
    ),
    // Router.
    (
        "name: edge1",
        "name: edge 1",
        r#"2:9: name "edge 1" is not usable; write 1 to 64 of the characters A-Z a-z 0-9 . _ -, a letter or digit first: name: web-1"#,
    ),
    (
        "name: edge1",
        "name: edge1\n  level: sight",
        r#"3:10: level "sight" is not known; write one of site, system, network: level: site"#,
    ),
    (
        "name: edge1",
        "name: edge1\n  level: 256",
        "3:10: level 256 is out of range; write one from 1 to 255: level: site",
    ),
    ("name: edge1", "name: edge1\n  level: 0", "3:10: level 0 is out of range; write one from 1 to 255: level: site"),
    (
        "[192.0.2.1]",
        "[192.0.2.1/24]",
        r#"3:22: tunnel address "192.0.2.1/24" has a prefix length, but one address belongs here: 192.0.2.1"#,
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.256]",
        r#"3:22: tunnel address "192.0.2.256" is not an IP address; write one like 192.0.2.1 or "2001:db8::1""#,
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.1, 192.0.2.2]",
        "3:33: 192.0.2.2 is the second tunnel address of its family; keep one of each family",
    ),
    (
        "[192.0.2.1]",
        "[224.0.0.1]",
        r#"3:22: tunnel address 224.0.0.1 is a multicast group; write the address of one machine, like 192.0.2.1 or "2001:db8::1""#,
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.1]\n  tunnel_source_prefixes: [192.0.2.64]",
        "4:28: tunnel source prefix 192.0.2.64 holds one address only; write a shorter one: 192.0.2.64/26",
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.1]\n  tunnel_source_prefixes: [192.0.2.65/26]",
        "4:28: tunnel source prefix 192.0.2.65/26 has bits set behind the prefix; write 192.0.2.64/26 for all of it or 192.0.2.65 for one address",
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.1]\n  tunnel_source_prefixes: [192.0.2.64/26, 10.9.0.0/24]",
        "4:43: 10.9.0.0/24 is the second tunnel source prefix of its family; keep one of each family",
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.1]\n  tunnel_source_prefixes: [\"2001:db8::/64\"]",
        r#"4:28: tunnel source prefix 2001:db8::/64 is IPv6, but the router has no IPv6 tunnel address; add one to router: tunnel_addresses: ["2001:db8::1"]"#,
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.1]\n  parents: [\"2001:db8::/64\"]",
        r#"4:13: parent 2001:db8::/64 is IPv6, but the router has no IPv6 tunnel address; add one to router: tunnel_addresses: ["2001:db8::1"]"#,
    ),
    (
        "[192.0.2.1]",
        "[192.0.2.1]\n  parents: [10.0.0.9, 10.0.0.9/32]",
        "4:23: parent 10.0.0.9/32 is already there (line 4); change or remove one of them",
    ),
    // Dpdk, workers.
    (
        "512MiB",
        "512MB",
        r#"4:17: memory "512MB" is not a size; write a whole number with its unit MiB or GiB: memory: 512MiB"#,
    ),
    (
        "512MiB",
        "512",
        r#"4:17: memory "512" is not a size; write a whole number with its unit MiB or GiB: memory: 512MiB"#,
    ),
    ("512MiB", "1MiB", r#"4:17: memory "1MiB" is out of range; write a size from 64MiB to 1024GiB: memory: 512MiB"#),
    (
        "512MiB",
        "99999999999999999999GiB",
        r#"4:17: memory "99999999999999999999GiB" is not a size; write a whole number with its unit MiB or GiB: memory: 512MiB"#,
    ),
    (
        "512MiB",
        "64MiB, buffers: 100000",
        "4:33: 100000 buffers do not fit into 64MiB; write at least memory: 220MiB or fewer buffers",
    ),
    (
        "512MiB",
        "64MiB, buffers: 10",
        "4:33: buffers 10 is out of range; write one from 1024 to 67108864: buffers: 16384",
    ),
    (
        "512MiB",
        "64MiB, hugepages: alway",
        r#"4:35: hugepages "alway" is not known; write one of auto, require, never: hugepages: auto"#,
    ),
    (
        "512MiB",
        "64MiB, hugepages: always",
        r#"4:35: hugepages "always" is not known; write one of auto, require, never: hugepages: auto"#,
    ),
    ("count: 2", "count: 1", "5:28: 2 CPUs for 1 workers; name one CPU for each worker, or none"),
    ("count: 2", "count: 0", "5:19: count 0 is out of range; write one from 1 to 127: count: 2"),
    ("count: 2", "count: two", r#"5:19: count "two" is not a whole number; write one from 1 to 127: count: 2"#),
    ("count: 2", "count: -1", r#"5:19: count "-1" is not a whole number; write one from 1 to 127: count: 2"#),
    (
        "cpus: [1, 2]",
        "cpus: [1, 2], idle: doze",
        "5:42: idle \"doze\" is not known; write one of poll, sleep: idle: poll",
    ),
    ("cpus: [1, 2]", "cpus: [1, 1]", "5:32: CPU 1 is already there (line 5); change or remove one of them"),
    ("cpus: [1, 2]", "cpus: [1, 4096]", "5:32: cpus 4096 is out of range; write one from 0 to 1023: cpus: [1, 2]"),
    // Ports, routes, neighbours.
    ("name: farm", "name: outside", "8:13: port outside is already there (line 7); change or remove one of them"),
    ("net_null1", "net_null0", "8:27: device net_null0 is already there (line 7); change or remove one of them"),
    (
        "net_null1",
        "",
        r#"8:27: device "" is not a DPDK device; write a PCI address "0000:01:00.0" or a driver with its arguments "net_af_packet0,iface=veth0""#,
    ),
    ("mtu: 1500", "mtu: 500", "7:48: mtu 500 is out of range; write one from 576 to 65535: mtu: 1500"),
    ("mtu: 1500", "mtu: 65536", "7:48: mtu 65536 is out of range; write one from 576 to 65535: mtu: 1500"),
    (
        "mtu: 1500, addresses: [",
        r#"mtu: 1279, addresses: ["2001:db8::1/64", "#,
        r#"7:48: mtu 1279 is too small for the IPv6 address of port "outside"; write at least mtu: 1280"#,
    ),
    ("vlan: 7", "vlan: 4095", "7:86: vlan 4095 is out of range; write one from 1 to 4094: vlan: 100"),
    ("vlan: 7", "vlan: 0", "7:86: vlan 0 is out of range; write one from 1 to 4094: vlan: 100"),
    (
        "10.0.1.1/24",
        "10.0.1.1",
        r#"8:52: port address "10.0.1.1" is not an address with the length of its subnet; write one like 10.0.0.1/24 or "2001:db8::1/64""#,
    ),
    (
        "10.0.1.1/24",
        "10.0.1.0/24",
        "8:52: port address 10.0.1.0/24 is none that a machine can have; write one like 10.0.0.1/24",
    ),
    (
        "10.0.1.1/24",
        "10.0.0.2/24",
        r#"8:52: the subnet of 10.0.0.2/24 is on port "outside" already; each belongs to one port, change one of them"#,
    ),
    (
        "10.0.1.1/24",
        "10.0.0.1/24",
        r#"8:52: the address of 10.0.0.1/24 is on port "outside" already; each belongs to one port, change one of them"#,
    ),
    (
        "via: 10.0.0.254",
        "via: 10.0.2.254",
        "10:31: via 10.0.2.254 is in no port's subnet; write an address in one of 10.0.0.0/24, 10.0.1.0/24",
    ),
    ("via: 10.0.0.254", "via: 10.0.0.1", "10:31: via 10.0.0.1 is the router's own address; write a neighbour's"),
    (
        "via: 10.0.0.254",
        "via: 10.0.0.254 }\n  - { prefix: 0.0.0.0/0, via: 10.0.0.253",
        "11:15: route to 0.0.0.0/0 is already there (line 10); change or remove one of them",
    ),
    (
        "prefix: 0.0.0.0/0",
        r#"prefix: "::/0""#,
        "10:28: via 10.0.0.254 is not of the family of ::/0; write a next hop of the same family",
    ),
    (
        "prefix: 0.0.0.0/0",
        "prefix: 10.3.0.1/8",
        "10:15: prefix 10.3.0.1/8 has bits set behind the prefix; write 10.0.0.0/8 for all of it or 10.3.0.1 for one address",
    ),
    (
        "address: 10.0.0.254",
        "address: 10.0.3.254",
        "12:16: neighbour 10.0.3.254 is in no port's subnet; write an address in one of 10.0.0.0/24, 10.0.1.0/24",
    ),
    (
        r#"mac: "02:00:5e:10:00:01""#,
        r#"mac: "02:00:5e:10:00""#,
        r#"12:33: mac "02:00:5e:10:00" is not six hexadecimal octets; write them with colons, in quotes: "02:00:5e:10:00:01""#,
    ),
    (
        r#"mac: "02:00:5e:10:00:01""#,
        r#"mac: "01:00:5e:10:00:01""#,
        r#"12:33: mac 01:00:5e:10:00:01 is the address of a group of machines; write one machine's: "02:00:5e:10:00:01""#,
    ),
    (
        r#"mac: "02:00:5e:10:00:01" }"#,
        "mac: \"02:00:5e:10:00:01\" }\n  - { address: 10.0.0.254, mac: \"02:00:5e:10:00:02\" }",
        "13:16: neighbour 10.0.0.254 is already there (line 12); change or remove one of them",
    ),
    // Flows, cluster, metrics.
    (
        "udp: 30s",
        "udp: 30",
        r#"13:46: udp "30" is not a time; write a whole number with its unit ms, s, m or h: udp: 60s"#,
    ),
    (
        "udp: 30s",
        "udp: 30 sec",
        r#"13:46: udp "30 sec" is not a time; write a whole number with its unit ms, s, m or h: udp: 60s"#,
    ),
    ("udp: 30s", "udp: 0s", r#"13:46: udp "0s" is out of range; write a time from 1ms to 168h: udp: 60s"#),
    ("udp: 30s", "udp: 169h", r#"13:46: udp "169h" is out of range; write a time from 1ms to 168h: udp: 60s"#),
    (
        "capacity_v4: 1000",
        "capacity_v4: 0",
        "13:23: capacity_v4 0 is out of range; write one from 1 to 268435456: capacity_v4: 1000000",
    ),
    (
        "capacity_v4: 1000",
        "inserts_per_second: 0",
        "13:30: inserts_per_second 0 is out of range; write one from 1 to 1000000000: inserts_per_second: 1000000",
    ),
    (
        "000102030405060708090a0b0c0d0e0f",
        "0001020304",
        "14:17: the key is not 32 hexadecimal digits; make one with openssl rand -hex 16: key: 000102030405060708090a0b0c0d0e0f",
    ),
    (
        "table_size: 101",
        "table_size: 65536",
        "14:63: table_size 65536 is not a prime; write the next one up: table_size: 65537",
    ),
    (
        "table_size: 101",
        "table_size: 1",
        "14:63: table_size 1 is out of range; write one from 2 to 16777213: table_size: 65537",
    ),
    (
        "table_size: 101",
        "table_size: 16777214",
        "14:63: table_size 16777214 is out of range; write one from 2 to 16777213: table_size: 65537",
    ),
    (
        "table_size: 101",
        "table_size: 2",
        r#"28:15: table_size 2 is smaller than the 3 children of virtual host "web"; write at least a hundred slots a child: table_size: 65537"#,
    ),
    (
        "flow: { source: { v4: 24 } }",
        "table_size: 2",
        r#"27:17: table_size 2 is smaller than the 3 children of virtual host "web"; write at least a hundred slots a child: table_size: 65537"#,
    ),
    (
        "listen: 127.0.0.1:9477",
        "listen: localhost",
        r#"29:20: listen "localhost" is neither off nor an address with a port; write listen: 127.0.0.1:9477 or listen: "[::1]:9477""#,
    ),
    (
        "/run/slr/edge1.sock",
        "edge1.sock",
        r#"30:20: socket "edge1.sock" is neither off nor the whole path of a file; write socket: /run/slr/edge1.sock or socket: off"#,
    ),
    (
        "/run/slr/edge1.sock",
        "/run/slr/",
        r#"30:20: socket "/run/slr/" is neither off nor the whole path of a file; write socket: /run/slr/edge1.sock or socket: off"#,
    ),
    (
        "/run/slr/edge1.sock",
        "/run/slr-of-a-machine-with-very-many-routers/in-a-building-with-very-many-machines/in-a-city/edge1-of-all.sock",
        r#"30:20: socket "/run/slr-of-a-machine-with-very-many-routers/in-a-building-w..." is too long for a socket, which may have 100 characters; write socket: /run/slr/edge1.sock or socket: off"#,
    ),
    // Children.
    (
        "{ name: server1, address: 10.0.1.11 }",
        "{ name: server1 }",
        r#"16:13: child "server1" has no address; add it: address: 10.0.1.1"#,
    ),
    (
        "{ name: server1, address: 10.0.1.11 }",
        "{ address: 10.0.1.11 }",
        r#"16:7: missing key "name"; add it: name: web-1"#,
    ),
    (
        "address: 10.0.1.11",
        "address: server1.example.org",
        r#"16:31: address "server1.example.org" is not an IP address; write one like 192.0.2.1 or "2001:db8::1""#,
    ),
    (
        "address: 10.0.1.11",
        "address: 0.0.0.0",
        r#"16:31: address 0.0.0.0 is the unspecified address; write the address of one machine, like 192.0.2.1 or "2001:db8::1""#,
    ),
    (
        "address: 10.0.1.11",
        r#"address: "2001:db8::11""#,
        r#"16:31: child "server1" is IPv6, but the router has no IPv6 tunnel address; add one to router: tunnel_addresses: ["2001:db8::1"]"#,
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.1",
        r#"16:31: child "server1" has the router's own address 10.0.1.1; write the child's"#,
    ),
    (
        "  tunnel_addresses: [192.0.2.1]",
        "  tunnel_addresses: [192.0.2.1]\n  parents: [10.0.1.11]",
        r#"17:31: child "server1" has the address of a parent, 10.0.1.11; packets would go round in circles, write the child's"#,
    ),
    (
        "\nchildren:\n",
        "\nshortcuts: short\nchildren:\n",
        r#"15:12: shortcuts "short" is not known; write one of on, off: shortcuts: on"#,
    ),
    (
        "{ name: server2, address",
        "{ name: server1, address",
        "17:13: child server1 is already there (line 16); change or remove one of them",
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: l2tp",
        r#"16:50: tunnel "l2tp" is not known; write one of ipip, gue, gre, mac: tunnel: ipip, tunnel: gue or tunnel: { mpls: { label: 1000 } }"#,
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: mpls",
        r#"16:50: tunnel "mpls" has no label; write one: tunnel: { mpls: { label: 1000 } }"#,
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: { mpls: { label: 15 } }",
        "16:67: label 15 is out of range; write one from 16 to 1048575: label: 1000",
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: { mpls: {} }",
        r#"16:58: missing key "label"; add it: label: 1000"#,
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: { gue: {}, mpls: { label: 16 } }",
        "16:50: a tunnel is of one kind; write one: tunnel: ipip, tunnel: gue or tunnel: { mpls: { label: 1000 } }",
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: { ipip: {} }",
        r#"16:52: unknown key "ipip"; the keys here are gue, mpls"#,
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: { gue: { port: 0 } }",
        "16:65: port 0 is out of range; write one from 1 to 65535: port: 6080",
    ),
    (
        "address: 10.0.1.11",
        "address: 10.0.1.11, tunnel: { gue: { variant: 2 } }",
        r#"16:68: variant 2 is out of range; write one from 0 to 1: variant: 0"#,
    ),
    (
        "address: 10.9.9.13",
        "address: 10.9.9.13, tunnel: mac",
        r#"18:50: child "server3" is in no port's subnet, and a changed MAC address leads no farther; write another kind: tunnel: ipip"#,
    ),
    (
        "  name: edge1\n",
        "  name: edge1\n  gue_port: 65536\n",
        "3:13: gue_port 65536 is out of range; write one from 1 to 65535: gue_port: 6080",
    ),
    (
        "prefix: 0.0.0.0/0",
        "prefix: 10.8.0.0/16",
        r#"18:31: child "server3" cannot be reached: no port's subnet and no route has 10.9.9.13; add a route: { prefix: 0.0.0.0/0, via: 10.0.0.254 }"#,
    ),
    (
        "  - { name: server1, address: 10.0.1.11 }",
        "  - { name: server1, address: 10.0.1.11 }\n  - { name: far, address: \"::1\" }",
        r#"17:27: child "far" is IPv6, but the router has no IPv6 tunnel address; add one to router: tunnel_addresses: ["2001:db8::1"]"#,
    ),
    // Virtual hosts.
    ("name: web", "name: shop", "24:11: virtual host shop is already there (line 20); change or remove one of them"),
    (
        "[198.51.100.81]",
        "[]",
        r#"25:16: virtual host "web" has no address; write at least one: addresses: [192.0.2.80/32]"#,
    ),
    (
        "[198.51.100.81]",
        "[198.51.100.81/24]",
        "25:17: address 198.51.100.81/24 has bits set behind the prefix; write 198.51.100.0/24 for all of it or 198.51.100.81 for one address",
    ),
    (
        "[198.51.100.81]",
        "[198.51.100]",
        r#"25:17: address "198.51.100" is not an address or prefix; write one like 192.0.2.80, 192.0.2.0/24 or "2001:db8::/64""#,
    ),
    (
        "[198.51.100.81]",
        "[198.51.100.81, 198.51.100.81/32]",
        "25:32: address 198.51.100.81 is already there (line 25); change or remove one of them",
    ),
    (
        "[198.51.100.81]",
        "[192.0.2.1]",
        r#"25:17: virtual host "web" has the router's own address 192.0.2.1; give the service one of its own"#,
    ),
    (
        "flow: { source: { v4: 24 } }",
        "table_size: 1000",
        "27:17: table_size 1000 is not a prime; write the next one up: table_size: 1009",
    ),
    (
        "services: [tcp/80]",
        "services: []",
        r#"22:15: virtual host "shop" has an empty list of services; leave the key out for any, or write services: [tcp/80, tcp/8000-8999, udp]"#,
    ),
    ("services: [tcp/80]", "services: [tpc/80]", r#"22:16: service "tpc/80" is not known; did you mean "tcp"?"#),
    (
        "services: [tcp/80]",
        "services: [http]",
        r#"22:16: service "http" is not known; write tcp, udp, sctp, icmp, icmpv6, a protocol number from 0 to 255, or any"#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/80-]",
        r#"22:16: service "tcp/80-" has no good port; write one from 0 to 65535 or a range: tcp/80 or tcp/8000-8999"#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/90-80]",
        r#"22:16: service "tcp/90-80" has no good port; write one from 0 to 65535 or a range: tcp/80 or tcp/8000-8999"#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/65536]",
        r#"22:16: service "tcp/65536" has no good port; write one from 0 to 65535 or a range: tcp/80 or tcp/8000-8999"#,
    ),
    (
        "services: [tcp/80]",
        "services: [icmp/8]",
        r#"22:16: service "icmp/8" has a port, which its protocol does not have; write icmp alone"#,
    ),
    ("services: [tcp/80]", "services: [any/80]", r#"22:16: service "any/80" is not known; did you mean "any"?"#),
    (
        "services: [tcp/80]",
        "services: [47/80]",
        r#"22:16: service "47/80" has a port, which its protocol does not have; write 47 alone"#,
    ),
    (
        "services: [tcp/80]",
        "services: [256]",
        r#"22:16: service "256" is not known; write tcp, udp, sctp, icmp, icmpv6, a protocol number from 0 to 255, or any"#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/80, 6/80]",
        r#"22:24: virtual host "shop" has the service tcp/80 twice; remove one of them"#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/80-90, tcp/85-95]",
        r#"22:27: services tcp/80-90 and tcp/85-95 of virtual host "shop" overlap; write them as one: tcp/80-95"#,
    ),
    (
        "flow: { source: { v4: 24 } }",
        "flow: 4-tuple",
        r#"27:11: flow "4-tuple" is not known; write flow: 5-tuple, flow: source or flow: { source: { v4: 24, v6: 56 } }"#,
    ),
    ("source: { v4: 24 }", "source: { v4: 33 }", "27:27: v4 33 is out of range; write one from 0 to 32: v4: 24"),
    (
        "flow: { source: { v4: 24 } }",
        "selection: least_costs",
        r#"27:16: selection "least_costs" is not known; did you mean selection: least_cost?"#,
    ),
    (
        "children: [server1, server2]",
        "children: []",
        r#"23:15: virtual host "shop" has no children; name at least one: children: [server1]"#,
    ),
    (
        "children: [server1, server2]",
        "children: [server1, server33]",
        r#"23:25: virtual host "shop" names the child "server33", which is not defined; did you mean "server3"?"#,
    ),
    (
        "children: [server1, server2]",
        "children: [database]",
        r#"23:16: virtual host "shop" names the child "database", which is not defined; define it in the top-level children: { name: server1, address: 10.0.1.1 }"#,
    ),
    (
        "children: [server1, server2]",
        "children: [server1, server1]",
        "23:25: child server1 is already there (line 23); change or remove one of them",
    ),
    ("weight: 10", "weight: 10001", "28:50: weight 10001 is out of range; write one from 0 to 10000: weight: 10"),
    ("weight: 10", "weight: -1", r#"28:50: weight "-1" is not a whole number; write one from 0 to 10000: weight: 10"#),
    (
        "weight: 10",
        "weight: ten",
        r#"28:50: weight "ten" is not a whole number; write one from 0 to 10000: weight: 10"#,
    ),
    (
        "weight: 10",
        "weight: 0x10",
        r#"28:50: weight "0x10" is not a whole number; write one from 0 to 10000: weight: 10"#,
    ),
    ("weight: 10", "cost: -0.5", r#"28:48: cost "-0.5" is not a number of at least 0; write one: cost: 1.5"#),
    ("weight: 10", "cost: .inf", r#"28:48: cost ".inf" is not a number of at least 0; write one: cost: 1.5"#),
    ("weight: 10", "cost: cheap", r#"28:48: cost "cheap" is not a number of at least 0; write one: cost: 1.5"#),
    ("weight: 10", "tier: 256", "28:48: tier 256 is out of range; write one from 0 to 255: tier: 0"),
    (
        "{ name: server2, weight: 10 }",
        "{ name: server9, weight: 10 }",
        r#"28:33: virtual host "web" names the child "server9", which is not defined; did you mean "server1"?"#,
    ),
    ("{ name: server2, weight: 10 }", "{ weight: 10 }", r#"28:27: missing key "name"; add it: name: web-1"#),
    // QUIC and MSS.
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 21, server_id_length: 1 }\n    children: [server1]",
        r#"27:21: length 21 is out of range; write one from 1 to 20: length: 8"#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 4, offset: 4, server_id_length: 1 }\n    children: [server1]",
        r#"27:32: offset 4 is out of range; write one from 0 to 3: offset: 1"#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 4, server_id_length: 0 }\n    children: [server1]",
        r#"27:42: server_id_length 0 is out of range; write one from 1 to 16: server_id_length: 2"#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 4, offset: 3, server_id_length: 2 }\n    children: [server1]",
        r#"27:53: a server id of 2 bytes from byte 3 ends behind a connection id of 4; write at least length: 5, or less of the others"#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 4 }\n    children: [server1]",
        r#"27:13: missing key "server_id_length"; add it: server_id_length: 2"#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 4, server_id_length: 2 }\n    children: [server1]",
        r#"28:16: child "server1" has no server_id, by which QUIC connections are told; add it: { name: server1, server_id: "00a1" }"#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 4, server_id_length: 2 }\n    children: [{ name: server1, server_id: a1 }]",
        r#"28:44: server_id "a1" is not 4 hexadecimal digits, as server_id_length: 2 says; write them in quotes: server_id: "00a1""#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    quic: { length: 4, server_id_length: 1 }\n    children: [{ name: server1, server_id: \"a1\" }, { name: server2, server_id: \"A1\" }]",
        r#"28:80: server_id a1 is already there (line 28); change or remove one of them"#,
    ),
    (
        "    flow: { source: { v4: 24 } }\n    children: [server1, { name: server2, weight: 10 }, server3]",
        "    children: [{ name: server1, server_id: \"a1\" }]",
        r#"27:44: server_id has no meaning without the virtual host's quic; leave it out, or add quic: { length: 8, offset: 1, server_id_length: 2 }"#,
    ),
    (
        "    services: [tcp/80]\n",
        "    services: [tcp/80]\n    quic: { length: 4, server_id_length: 1 }\n",
        "23:11: quic has no meaning without UDP; add it: services: [tcp/443, udp/443]",
    ),
    (
        "    services: [tcp/80]\n",
        "    services: [udp/80]\n    mss_clamp: auto\n",
        "23:16: mss_clamp has no meaning without TCP; leave it out",
    ),
    (
        "    services: [tcp/80]\n",
        "    services: [tcp/80]\n    mss_clamp: 535\n",
        "23:16: mss_clamp 535 is out of range; write one from 536 to 65495: mss_clamp: auto",
    ),
    (
        "    services: [tcp/80]\n",
        "    services: [tcp/80]\n    mss_clamp: atuo\n",
        r#"23:16: mss_clamp "atuo" is not known; did you mean mss_clamp: auto?"#,
    ),
    // Health.
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: smtp",
        r#"24:13: health "smtp" is not known; write one of icmp, tcp, http, https, tls, or a map: health: tcp or health: { http: { path: /ok }, interval: 200ms }"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: htp",
        r#"24:13: health "htp" is not known; did you mean health: http?"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: [tcp]",
        "24:13: a word or a map is expected here, not a list; write it like flow: 5-tuple, tunnel: gre, health: tcp or children: [server1, { name: server2, weight: 10 }]",
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: {}",
        r#"24:13: the health of virtual host "shop" names no kind of check; write exactly one of icmp, tcp, http, https, tls, dns, command: health: tcp or health: { http: { path: /ok }, interval: 200ms }"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, icmp: {} }",
        r#"24:13: the health of virtual host "shop" names more than one kind of check; write exactly one of icmp, tcp, http, https, tls, dns, command: health: tcp or health: { http: { path: /ok }, interval: 200ms }"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: { port: 0 } }",
        "24:28: port 0 is out of range; write one from 1 to 65535: port: 6080",
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { http: { path: ok } }",
        r#"24:29: path "ok" cannot stand in a request; write up to 1024 visible ASCII characters, a slash first: path: /ok"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { http: { host: \"a b\" } }",
        r#"24:29: host "a b" cannot stand in a request; write up to 1024 visible ASCII characters: host: www.example.org"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { http: { expect: 99 } }",
        r#"24:31: expect "99" is no HTTP status; write one from 100 to 599 or a range: expect: 200 or expect: 200-299"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { http: { expect: 300-200 } }",
        r#"24:31: expect "300-200" is no HTTP status; write one from 100 to 599 or a range: expect: 200 or expect: 200-299"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { http: { server_name: x } }",
        r#"24:23: unknown key "server_name"; the keys here are port, path, host, expect"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { icmp: { port: 1 } }",
        r#"24:23: unknown key "port"; nothing stands in these braces: {}"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { icmp: }",
        r#"24:13: the health of virtual host "shop" names no kind of check; write exactly one of icmp, tcp, http, https, tls, dns, command: health: tcp or health: { http: { path: /ok }, interval: 200ms }"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tls: { server_name: \"a b\" } }",
        r#"24:35: server_name "a b" is neither a host name nor an address; write one: server_name: www.example.org"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tls: { ca: /nonexistent.pem } }",
        r#"24:26: ca "/nonexistent.pem" cannot be read: I/O error: No such file or directory (os error 2); write a file of certificates in PEM form: ca: /etc/ssl/certs/ca-certificates.crt"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tls: { ca: /dev/null } }",
        r#"24:26: ca "/dev/null" has no certificate; write a file of certificates in PEM form: ca: /etc/ssl/certs/ca-certificates.crt"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { dns: {} }",
        r#"24:20: missing key "name"; add it: name: web-1"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { dns: { name: a..b } }",
        r#"24:28: name "a..b" is no domain name; write one: name: example.org"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { dns: { name: example.org, type: AXFR } }",
        r#"24:47: type "AXFR" is not known; write one of A, NS, CNAME, SOA, MX, TXT, AAAA: type: A"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { command: [] }",
        "24:24: the command is empty; write command: [/usr/local/bin/check-web, --quick]",
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { command: [check] }",
        r#"24:25: the program "check" is not given by its whole path; write command: [/usr/local/bin/check-web, --quick]"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { command: /bin/true }",
        r#"24:24: a list is expected here; write it in brackets or with one "- " a line: command: [/usr/local/bin/check-web, --quick]"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, address: 198.51.100.81 }",
        r#"24:33: 198.51.100.81 is no address of virtual host "shop"; write one of those it has"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, address: nowhere }",
        r#"24:33: address "nowhere" is not an IP address; write one like 192.0.2.1 or "2001:db8::1""#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, interval: 5ms }",
        r#"24:34: interval "5ms" is too short; write at least 10ms: interval: 200ms"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, timeout: 0.5s }",
        r#"24:33: timeout "0.5s" is not a time; write a whole number with its unit ms, s, m or h: timeout: 200ms"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, jitter: 51% }",
        r#"24:32: jitter "51%" is no share of the interval; write one from 0% to 50%: jitter: 10%"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, jitter: 10 }",
        r#"24:32: jitter "10" is no share of the interval; write one from 0% to 50%: jitter: 10%"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, rise: 0 }",
        "24:30: rise 0 is out of range; write one from 1 to 100: rise: 2",
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, fall: 101 }",
        "24:30: fall 101 is out of range; write one from 1 to 100: fall: 3",
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    health: { tcp: {}, initial: unknown }",
        r#"24:33: initial "unknown" is not known; write one of up, down: initial: up"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    on_unknown: keep",
        r#"24:17: on_unknown "keep" is not known; write one of select, drop, reset: on_unknown: select"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.0.2:9479] } }"#,
        r#"29:31: listen "10.9.0.1" is no address of one router with a port; write peers: [10.255.0.2:9479]"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 0.0.0.0:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.0.2:9479] } }"#,
        r#"29:31: listen "0.0.0.0:9479" is no address of one router with a port; write peers: [10.255.0.2:9479]"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [r2:9479] } }"#,
        r#"29:93: peer "r2:9479" is no address of one router with a port; write peers: [10.255.0.2:9479]"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.0.1:9479] } }"#,
        r#"29:93: peer 10.9.0.1:9479 is this router itself; leave it out"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.0.2:9479, 10.9.0.2:9479] } }"#,
        r#"29:108: peer 10.9.0.2:9479 is already there (line 29); change or remove one of them"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: ["[2001:db8::2]:9479"] } }"#,
        r#"29:93: peer [2001:db8::2]:9479 is of another family than listen 10.9.0.1:9479; write both alike"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.1.1:9479, 10.9.1.2:9479, 10.9.1.3:9479, 10.9.1.4:9479, 10.9.1.5:9479, 10.9.1.6:9479, 10.9.1.7:9479, 10.9.1.8:9479, 10.9.1.9:9479, 10.9.1.10:9479, 10.9.1.11:9479, 10.9.1.12:9479, 10.9.1.13:9479, 10.9.1.14:9479, 10.9.1.15:9479, 10.9.1.16:9479, 10.9.1.17:9479] } }"#,
        r#"29:340: 10.9.1.17:9479 is one peer more than 16; name the nearest, and let them pass on"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 0001, peers: [10.9.0.2:9479] } }"#,
        r#"29:51: the key is not 32 hexadecimal digits; make one with openssl rand -hex 16: key: 000102030405060708090a0b0c0d0e0f"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.0.2:9479], hops: 9 } }"#,
        r#"29:115: hops 9 is out of range; write one from 0 to 8: hops: 1"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.0.2:9479], patience: 5ms } }"#,
        r#"29:119: patience 5ms is not from 10ms to 1s; write patience: 100ms"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { whohas: { listen: 10.9.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.9.0.2:9479], questions_per_second: 0 } }"#,
        r#"29:131: questions_per_second 0 is out of range; write one from 1 to 1000000: questions_per_second: 10000"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { ask_workers: maybe }"#,
        r#"29:26: ask_workers "maybe" is not known; write one of on, off: ask_workers: on"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { first_packets: drop }"#,
        r#"29:28: first_packets "drop" is not known; write one of hold, select: first_packets: hold"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"recovery: { echo: { key: secret } }"#,
        r#"29:26: the key is not 32 hexadecimal digits; make one with openssl rand -hex 16: key: 000102030405060708090a0b0c0d0e0f"#,
    ),
    (
        "    children: [server1, server2]",
        "    children: [server1, server2]\n    on_failure: drop",
        r#"24:17: on_failure "drop" is not known; write one of keep, reselect: on_failure: keep"#,
    ),
    (
        "addresses: [198.51.100.80]\n    services: [tcp/80]",
        "addresses: [\"2001:db8::80\"]\n    services: [tcp/80]\n    health: tcp",
        r#"23:13: checks of virtual host "shop" go to the IPv6 address 2001:db8::80, but the router has no IPv6 address that answers could come to; add one to router: tunnel_addresses: ["2001:db8::1"]"#,
    ),
    (
        "addresses: [198.51.100.80]\n    services: [tcp/80]",
        "addresses: [0.0.0.0/0]\n    services: [tcp/80]\n    health: tcp",
        r#"23:13: the first address of virtual host "shop", 0.0.0.0, cannot be checked; name another one of it: health: { address: 192.0.2.80, tcp: {} }"#,
    ),
    // Sessions and costs.
    (
        "control: { socket: /run/slr/edge1.sock }",
        "control: { listen: 10.255.0.1 }",
        r#"30:20: listen "10.255.0.1" is no address with a port; write one like listen: 10.255.0.1:9478"#,
    ),
    (
        "control: { socket: /run/slr/edge1.sock }",
        "control: { listen: 10.255.0.1:9478 }",
        "30:20: sessions with children and parents need certificate, key and authority; add them to control: { certificate: /etc/slr/edge1.pem, key: /etc/slr/edge1.key, authority: /etc/slr/ca.pem }",
    ),
    (
        "control: { socket: /run/slr/edge1.sock }",
        "parents: [{ name: system1, address: 10.255.0.9:9478 }]",
        "30:19: sessions with children and parents need certificate, key and authority; add them to control: { certificate: /etc/slr/edge1.pem, key: /etc/slr/edge1.key, authority: /etc/slr/ca.pem }",
    ),
    (
        "control: { socket: /run/slr/edge1.sock }",
        "parents: { name: system1 }",
        "30:10: a list is expected here; write it in brackets or with one \"- \" a line: parents: [{ name: system1, address: 10.255.0.9:9478 }]",
    ),
    (
        "control: { socket: /run/slr/edge1.sock }",
        "parents: [{ name: system1, address: 10.255.0.9:9478 }, { name: system1, address: 10.255.0.8:9478 }]",
        "30:64: parent system1 is already there (line 30); change or remove one of them",
    ),
    (
        "control: { socket: /run/slr/edge1.sock }",
        "control: { registration: anyone }",
        "30:26: this has no meaning without sessions; leave it out, or add control: listen",
    ),
    (
        "control: { socket: /run/slr/edge1.sock }",
        "control: { interval: 2s }",
        "30:22: this has no meaning without sessions; leave it out, or add control: listen or parents:",
    ),
    (
        "control: { socket: /run/slr/edge1.sock }",
        "control: { listen: 10.255.0.1:9478, interval: 2m }",
        r#"30:47: interval "2m" is out of range; write a time from 100ms to 60s: interval: 1s"#,
    ),
    (
        "address: 10.0.1.11 }",
        "address: 10.0.1.11, register: required }",
        r#"16:52: child "server1" can tell nothing, as we do not listen; add control: { listen: 10.255.0.1:9478, ... }"#,
    ),
    (
        "address: 10.0.1.11 }",
        "address: 10.0.1.11, register: yes }",
        r#"16:52: register "yes" is not known; write one of off, optional, required: register: required"#,
    ),
    (
        "address: 10.0.1.11 }",
        "address: 10.0.1.11, labels: [\"a b\"] }",
        r#"16:51: labels "a b" is not usable; write 1 to 64 of the characters A-Z a-z 0-9 . _ -, a letter or digit first: labels: [ssd, rack7]"#,
    ),
    (
        "address: 10.0.1.11 }",
        "address: 10.0.1.11, route_cost: -1 }",
        r#"16:54: route_cost "-1" is neither a number of at least 0 nor rtt or metric; write route_cost: 10, route_cost: rtt for the round-trip time in milliseconds, or route_cost: metric for the kernel's route"#,
    ),
    (
        "address: 10.0.1.11 }",
        "address: 10.0.1.11, route_cost: rtt }",
        r#"16:54: the round-trip time to child "server1" is only known by its session, or by checks by icmp or tcp; add register: optional, or to a virtual host of its health: icmp"#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/80]\n    cost_function: load",
        "23:20: cost_function has no meaning without costs; add selection: least_cost or selection: shares",
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/80]\n    selection: shares\n    cost_function: load + lod",
        r#"24:20: cost_function "load + lod" names lod, which is not there; there are load, capacity, route_cost, rtt_ms, weight, cost, tier, child, labels, client_region, level, hour, minute, weekday (at its character 8); an example: cost_function: "load + 0.1 * route_cost""#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/80]\n    aggregate_function: load",
        r#"23:25: aggregate_function "load" names load, which is not there; there are children, level, hour, minute, weekday (at its character 1); an example: aggregate_function: "mean(children.map(c, c.load))""#,
    ),
    (
        "services: [tcp/80]",
        "services: [tcp/80-89]\n    health: tcp",
        r#"23:13: the services of virtual host "shop" name no single port to check; name one: health: { tcp: { port: 80 } }"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: inside, id: 51, virtual_addresses: [10.0.0.10] }"#,
        r#"29:17: access "inside" is not a port; ports are outside, farm"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 0, virtual_addresses: [10.0.0.10] }"#,
        r#"29:30: id 0 is out of range; write one from 1 to 255: id: 51"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [] }"#,
        r#"29:53: a pair without addresses is none; write virtual_addresses: [10.0.0.10]"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.1] }"#,
        r#"29:54: virtual address 10.0.0.1 is this router's own address; write one that neither of the two has"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [198.51.100.80] }"#,
        r#"29:54: virtual address 198.51.100.80 belongs to a virtual host; write the address by which the access routers reach the pair"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.1.10] }"#,
        r#"29:54: virtual address 10.0.1.10 is in no subnet of port "outside"; write one that is"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: ["fe80::10"] }"#,
        r#"29:54: virtual address fe80::10 is of a family that port "outside" has no address of; add one to the port"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10, 10.0.0.10] }"#,
        r#"29:65: virtual address 10.0.0.10 is already there (line 29); change or remove one of them"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10, 10.0.0.11, 10.0.0.12, 10.0.0.13, 10.0.0.14, 10.0.0.15, 10.0.0.16, 10.0.0.17, 10.0.0.18, 10.0.0.19, 10.0.0.20, 10.0.0.21, 10.0.0.22, 10.0.0.23, 10.0.0.24, 10.0.0.25, 10.0.0.26] }"#,
        r#"29:230: virtual address 10.0.0.26 is one more than 16; leave it out"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], priority: 255 }"#,
        r#"29:76: priority 255 is out of range; write one from 1 to 254: priority: 100"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], heartbeat: 15ms }"#,
        r#"29:77: heartbeat 15ms is not a number of hundredths of a second from 10ms to 40950ms; write heartbeat: 100ms"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], heartbeat: 41s }"#,
        r#"29:77: heartbeat 41s is not a number of hundredths of a second from 10ms to 40950ms; write heartbeat: 100ms"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], preempt: never }"#,
        r#"29:75: preempt "never" is not a time; write a whole number with its unit ms, s, m or h: preempt: 5s"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], virtual_mac: 1 }"#,
        r#"29:79: virtual_mac "1" is not known; write one of on, off: virtual_mac: off"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], peer: { listen: 10.9.0.1, address: 10.9.0.2:9480, key: 000102030405060708090a0b0c0d0e0f } }"#,
        r#"29:82: listen "10.9.0.1" is no address of one router with a port; write peer: { listen: 10.255.0.1:9480, address: 10.255.0.2:9480, key: 000102030405060708090a0b0c0d0e0f }"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], peer: { listen: 10.9.0.1:9480, address: 10.9.0.1:9480, key: 000102030405060708090a0b0c0d0e0f } }"#,
        r#"29:106: address 10.9.0.1:9480 is this router itself; write the other one's"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], peer: { listen: 10.9.0.1:9480, address: "[2001:db8::2]:9480", key: 000102030405060708090a0b0c0d0e0f } }"#,
        r#"29:106: address [2001:db8::2]:9480 is of another family than listen 10.9.0.1:9480; write both alike"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], peer: { listen: 10.9.0.1:9480, address: 10.9.0.2:9480, key: 00 } }"#,
        r#"29:126: the key is not 32 hexadecimal digits; make one with openssl rand -hex 16: key: 000102030405060708090a0b0c0d0e0f"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], requires: { links: [inside] } }"#,
        r#"29:86: link "inside" is not a port; ports are outside, farm"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], requires: { links: [farm, farm] } }"#,
        r#"29:92: link farm is already there (line 29); change or remove one of them"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], requires: { gateways: [10.9.0.1] } }"#,
        r#"29:89: gateway 10.9.0.1 is no neighbour on a port; write gateways: [10.0.0.254]"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], requires: { gateways: [10.0.0.254, 10.0.0.254] } }"#,
        r#"29:101: gateway 10.0.0.254 is already there (line 29); change or remove one of them"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], requires: { live_children: 4 } }"#,
        r#"29:93: live_children 4 is out of range; write one from 0 to 3: live_children: 1"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], requires: { live_children: 1, penalty: 254 } }"#,
        r#"29:105: penalty 254 is out of range; write one from 1 to 253: penalty: 50"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], requires: { penalty: 10 } }"#,
        r#"29:87: penalty has no meaning where neither gateways nor live_children are required; leave it out"#,
    ),
    (
        "metrics: { listen: 127.0.0.1:9477 }",
        r#"pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10], mirror_after: 1s }"#,
        r#"29:80: mirror_after needs the other way to the other router; add peer: { listen: 10.255.0.1:9480, address: 10.255.0.2:9480, key: 000102030405060708090a0b0c0d0e0f }"#,
    ),
];
