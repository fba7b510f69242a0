#!/bin/bash
# Make the captures of testdata/pcap from real servers and real clients.
#
#   testdata/make-captures.sh [--native | --uml] [GROUP | NAME]...
#
# Run it as root on Debian. It installs what it lacks. GROUP is dns, links, tcp, frag, tunnels or files, NAME is one
# capture; without any, all are made. BIND and NSD are authoritative, unbound is the resolver in front of them, dig, kdig,
# nsupdate and dnsperf are the clients, each side in a network namespace of its own:
#
#   client  c0 192.0.2.10  --------  r0 192.0.2.53  resolver  r1 198.51.100.2  --------  a0 .53 NSD, .54 BIND  auth
#
# and the same with 2001:db8:1:: and 2001:db8:2::. Nothing leaves these namespaces. Where the kernel lacks a device that
# is needed (VLAN, GRE, netem, ...) the same work is done in a user-mode Linux, Debian's package user-mode-linux, which
# runs as a process, reads this machine's files and can write only the result. What is in testdata/pcap is replaced only
# when every capture asked for was made and holds what its name says.
set -Eeuo pipefail

here=$(cd "$(dirname "$0")" && pwd)
conf=$here/captures
target=$here/pcap
kernel=auto
stage=all
wanted=()
for arg in "$@"; do
	case $arg in
	--native) kernel=native ;;
	--uml) kernel=uml ;;
	--stage-capture) stage=capture ;; # how the script calls itself in user-mode Linux
	-*) echo "make-captures.sh: unknown option $arg" >&2; exit 2 ;;
	*) wanted+=("$arg") ;;
	esac
done

say() { printf "make-captures: %s\n" "${*//$'\n'/ | }" >&2; }
die() { say "$*"; exit 1; }
trap 'say "line $LINENO: failed: $BASH_COMMAND" 2>&4' ERR
exec 4>&2

# ---------------------------------------------------------------------------------------------- what is to be made

declare -A group_of
group=''
in_group() { group=$1; }
# want NAME: true when NAME or its group was asked for. It also writes down the name, so that a misspelt one is found.
want() {
	group_of[$1]=$group
	local w
	[ ${#wanted[@]} -eq 0 ] && return 0
	for w in "${wanted[@]}"; do
		if [ "$w" = "$1" ] || [ "$w" = "$group" ]; then return 0; fi
	done
	return 1
}

wants() { # wants NAME...: true when one of them was asked for
	local n yes=1
	for n in "$@"; do ! want "$n" || yes=0; done
	return $yes
}

# ------------------------------------------------------------------------------------------------------ namespaces

tag=gpd$$
C=$tag-client R=$tag-resolver A=$tag-auth
on() { ip netns exec "$@"; }

pids=()
stop_servers() {
	local p
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
	for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
	pids=()
}
doing=''
failed_at() { [ -z "$doing" ] || say "$doing failed: $(tail -n 8 "$work/clients.log")"; }
cleanup() {
	stop_servers
	local n p
	for n in $C $R $A; do
		for p in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$p" 2>/dev/null || true; done
		ip netns del "$n" 2>/dev/null || true
	done
}

# until_true SECONDS COMMAND...: run COMMAND until it succeeds; false when the time is over.
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

# wire NAMESPACE DEVICE ADDRESS...: bring a veth end up without offloads, so that the wire shows what a NIC would send.
wire() {
	local ns=$1 dev=$2 a
	shift 2
	on "$ns" ethtool -K "$dev" tx off rx off gso off gro off tso off sg off >/dev/null 2>&1 || true
	for a in "$@"; do
		case $a in
		*:*) ip -n "$ns" addr add "$a" dev "$dev" nodad ;;
		*) ip -n "$ns" addr add "$a" dev "$dev" ;;
		esac
	done
	ip -n "$ns" link set "$dev" up
}

network_up() {
	local n
	for n in $C $R $A; do
		ip netns add "$n"
		on "$n" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
			net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.router_solicitations=0 \
			net.ipv4.tcp_fastopen=3 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
			net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
		ip -n "$n" link set lo up
	done
	ip link add c0 netns $C address 02:00:00:00:01:10 type veth peer name r0 netns $R address 02:00:00:00:01:53
	ip link add r1 netns $R address 02:00:00:00:02:02 type veth peer name a0 netns $A address 02:00:00:00:02:53
	wire $C c0 192.0.2.10/24 192.0.2.11/24 2001:db8:1::10/64
	wire $R r0 192.0.2.53/24 2001:db8:1::53/64
	wire $R r1 198.51.100.2/24 2001:db8:2::2/64
	wire $A a0 198.51.100.53/24 198.51.100.54/24 198.51.100.55/24 2001:db8:2::53/64 2001:db8:2::54/64
	ip -n $C route add default via 192.0.2.53
	ip -n $C route add default via 2001:db8:1::53
	ip -n $A route add default via 198.51.100.2
	ip -n $A route add default via 2001:db8:2::2
	# An address that takes packets and never answers: nothing has this MAC.
	ip -n $R neigh add 198.51.100.99 lladdr 02:00:00:00:02:99 dev r1 nud permanent
}

# --------------------------------------------------------------------------------------------------------- servers

sign() { # sign ZONE DNSSEC-SIGNZONE-OPTION...
	local zone=$1
	shift
	local dir=$work/sign/$zone
	mkdir -p "$dir"
	cp "$conf/signed.test.zone" "$dir/zone"
	dnssec-keygen -q -K "$dir" -a ECDSAP256SHA256 "$zone" >/dev/null
	dnssec-keygen -q -K "$dir" -a ECDSAP256SHA256 -f KSK "$zone" >/dev/null
	# The keys exist before the servers' clocks say so, and signatures last ten years.
	(cd "$dir" && dnssec-signzone -q -S -K "$dir" -O full -o "$zone" -f "$work/bind/$zone.signed" "$@" zone) >>"$work/sign.log" 2>&1
	cat "$dir/dsset-$zone." >>"$work/nsd/test.zone"
	grep -h 'DNSKEY 257' "$dir"/K*.key >>"$work/unbound/anchors"
}

fill_in() { # fill_in TEMPLATE FILE [PORT [CAPS]]
	sed -e "s|@WORK@|$work|g" -e "s|@PORT@|${3:-53}|g" -e "s|@CAPS@|${4:-no}|g" "$conf/$1" >"$2"
}

servers_up() {
	mkdir -p "$work/bind" "$work/nsd" "$work/unbound"
	cp "$conf"/{types,dyn}.test.zone "$work/bind/"
	cp "$conf"/{root,test,example.test}.zone "$work/nsd/"
	cp "$conf/rpz.zone" "$work/unbound/"
	printf '. 86400 NS a.root-servers.test.\na.root-servers.test. 86400 A 198.51.100.53\na.root-servers.test. 86400 AAAA 2001:db8:2::53\n' >"$work/unbound/root.hints"
	{
		printf '$TTL 3600\n@ SOA ns.bind.test. hostmaster.test. 1 7200 3600 1209600 300\n NS ns.bind.test.\n'
		printf '$GENERATE 1-150 host-$ A 192.0.2.$\n$GENERATE 1-150 host-$ AAAA 2001:db8:1::$\n'
	} >"$work/bind/big.test.zone"
	local far=20360101000000
	sign signed.test -e $far
	sign nsec3.test -e $far -3 DEADBEEF -H 5
	sign bogus.test -P -s 20200101000000 -e 20200201000000
	fill_in named.conf "$work/named.conf"
	fill_in nsd.conf "$work/nsd.conf"
	fill_in unbound.conf "$work/unbound.conf"
	ip netns exec $A named -f -c "$work/named.conf" >"$work/named.log" 2>&1 &
	pids+=($!)
	until_true 60 on $A dig +short +tries=1 +time=1 @198.51.100.54 types.test SOA || die "BIND does not answer: $(tail -5 "$work/named.log")"
	ip netns exec $A nsd -d -c "$work/nsd.conf" >"$work/nsd.log" 2>&1 &
	pids+=($!)
	until_true 60 on $A dig +short +tries=1 +time=1 @198.51.100.53 test SOA || die "NSD does not answer: $(tail -5 "$work/nsd.log")"
	ip netns exec $R unbound -d -c "$work/unbound.conf" >"$work/unbound.out" 2>&1 &
	pids+=($!)
	until_true 60 has_answer $C @192.0.2.53 web.cdn.example.test A || die "unbound does not answer: $(tail -5 "$work/unbound.out" "$work"/unbound/*.log)"
	until_true 60 has_answer $A @198.51.100.53 start.dyn.test A || die "NSD has no dyn.test: $(tail -5 "$work/nsd.log")"
}
has_answer() { # has_answer NAMESPACE DIG-ARGUMENT...
	local ns=$1
	shift
	on "$ns" dig +tries=1 +time=2 "$@" | grep -q 'status: NOERROR.*' && [ -n "$(on "$ns" dig +short +tries=1 +time=2 "$@")" ]
}

# -------------------------------------------------------------------------------------------------------- captures

# Everything but the neighbourhood's own talk. It says nothing about ports, so that tags, fragments and tunnels stay.
plain='not arp and not icmp6 and not ip6 proto 0'

# capture NAME NAMESPACE DEVICE FUNCTION [TCPDUMP-OPTION...]: run FUNCTION and keep what passed DEVICE meanwhile.
capture() {
	local name=$1 ns=$2 dev=$3 what=$4
	shift 4
	want "$name" || return 0
	say "capturing $name"
	record "$name" "$ns" "$dev" "$@"
	doing=$name
	$what >>"$work/clients.log" 2>&1 # not in a condition, so that each command of it that fails ends the script
	doing=''
	finish "$name"
}
record() { # record NAME NAMESPACE DEVICE [TCPDUMP-OPTION...]; ends with finish NAME
	local name=$1 ns=$2 dev=$3
	shift 3
	ip netns exec "$ns" tcpdump -i "$dev" -n -U --immediate-mode -Z root -w "$out/$name.pcap" "$@" ${filter-$plain} 2>"$work/tcpdump.$name" &
	dump[$name]=$!
	until_true 20 grep -q 'listening on' "$work/tcpdump.$name" || die "$name: tcpdump: $(cat "$work/tcpdump.$name")"
}
declare -A dump
# finish NAME: wait until the capture has packets and no new one came for 0.6 s, then stop its tcpdump.
finish() {
	local size last=-1 same=0 i
	for i in $(seq 200); do
		size=$(stat -c %s "$out/$1.pcap")
		if [ "$size" -gt 24 ] && [ "$size" = "$last" ]; then same=$((same + 1)); else same=0; fi
		[ $same -lt 3 ] || break
		last=$size
		sleep 0.2
	done
	[ "$size" -gt 24 ] || die "$1: nothing was captured"
	kill -TERM "${dump[$1]}"
	wait "${dump[$1]}" || die "$1: tcpdump: $(cat "$work/tcpdump.$1")"
}

cdig() { on $C dig +tries=1 +time=5 "$@"; }
ckdig() { on $C kdig +retry=0 +timeout=5 "$@"; }
resolver=192.0.2.53 resolver6=2001:db8:1::53 nsd=198.51.100.53 bind=198.51.100.54 bind6=2001:db8:2::54 hole=198.51.100.99 closed=198.51.100.55

usual() { # usual SERVER: what an ordinary client asks
	local s=$1
	cdig "@$s" www.example.test A
	cdig "@$s" www.example.test AAAA
	cdig "@$s" example.test MX
	cdig "@$s" example.test TXT
	cdig "@$s" _sip._udp.example.test SRV
	cdig "@$s" web.cdn.example.test HTTPS
	ckdig "@$s" any.wild.example.test A
}
udp_v4() { usual $resolver; }
udp_v6() { usual $resolver6; }

# One query for every owner and type of the zone, with room for every answer.
zone_queries() { # zone_queries AWK-CONDITION
	named-checkzone -q -i none -k ignore -n ignore -r ignore -s full -o "$work/types.full" types.test "$work/bind/types.test.zone" || true
	awk "$1"' { t = $4; if (!seen[$1, t]++) print $1, t }' "$work/types.full" >"$work/queries"
	[ -s "$work/queries" ] || die "no queries from types.test.zone"
	cdig @$bind +bufsize=4096 +nocookie +norec -f "$work/queries"
}
rrtypes() {
	zone_queries '$1 ~ /^t-|_tcp|^types/'
	cdig @$nsd +nocookie t-md.example.test MD
	cdig @$nsd +nocookie t-mf.example.test MF
}
names() { zone_queries '$1 !~ /^t-|_tcp|^types|^ns|^mail/'; }
any() {
	cdig @$bind +nocookie +bufsize=4096 t-txt-several.types.test ANY
	cdig @$bind +nocookie +bufsize=4096 types.test ANY
	cdig @$bind +nocookie +bufsize=4096 t-a.types.test ANY
	cdig @$nsd +nocookie example.test ANY
}
edns() {
	cdig @$resolver +noedns web.cdn.example.test A
	cdig @$resolver +bufsize=512 web.cdn.example.test A
	cdig @$resolver +bufsize=4096 +dnssec web.cdn.example.test A
	cdig @$bind +ednsopt=65001:c0ffee00 t-a.types.test A
	cdig @$bind +ednsopt=65001: t-a.types.test A
	cdig @$bind +ednsflags=0x4000 t-a.types.test A
	cdig @$bind +padding=128 t-a.types.test A
	cdig @$bind +keepalive +expire dyn.test SOA
	cdig @$bind +cd +ad +noadflag t-a.types.test A
	ckdig @$resolver +edns=0 +padding=64 web.cdn.example.test A
	ckdig @$nsd +edns=0 +nsid +cookie web.cdn.example.test A
}
ecs() {
	cdig @$bind +nocookie +subnet=203.0.113.0/24 t-a.types.test A
	cdig @$bind +nocookie +subnet=2001:db8:77::/56 t-a.types.test A
	cdig @$bind +nocookie +subnet=0.0.0.0/0 t-a.types.test A
	cdig @$bind +nocookie +subnet=203.0.113.77/32 t-a.types.test A
	ckdig @$bind +subnet=203.0.113.128/25 t-a.types.test AAAA
	cdig @$resolver +nocookie +subnet=203.0.113.0/24 mail.types.test A
	cdig @$resolver +nocookie +subnet=203.0.112.0/20 mail.types.test A
	ckdig @$resolver +subnet=2001:db8:77::/48 mail.types.test AAAA
}
ede() {
	cdig @$resolver +nocookie www.bogus.test A
	cdig @$resolver +nocookie mail.bogus.test A
	cdig @$resolver +nocookie +cd www.bogus.test A
	cdig @$resolver +nocookie x.blocked.test A
	cdig @$resolver +nocookie no.refused.test A
	cdig -b 192.0.2.11 @$resolver +nocookie web.cdn.example.test A
}
nsid_cookie() {
	cdig @$bind +nsid +cookie t-a.types.test A
	cdig @$nsd +nsid +cookie web.cdn.example.test A
	cdig @$bind +cookie=0123456789abcdef t-a.types.test A
	ckdig @$bind +nsid +cookie t-a.types.test A
}
dnssec() {
	local t
	for t in A MX DNSKEY SOA NS NSEC3PARAM NSEC; do cdig @$bind +dnssec +nocookie +bufsize=4096 nsec3.test $t; done
	for t in A DNSKEY NSEC CDS CDNSKEY RRSIG; do cdig @$bind +dnssec +nocookie +bufsize=4096 signed.test $t; done
	cdig @$bind +dnssec +nocookie nothing.signed.test A
	cdig @$bind +dnssec +nocookie nothing.nsec3.test A
	cdig @$bind +dnssec +nocookie mail.signed.test TXT
	cdig @$bind +dnssec +nocookie mail.nsec3.test TXT
	cdig @$bind +dnssec +nocookie any.wild.nsec3.test A
	cdig @$bind +dnssec +nocookie x.insecure.nsec3.test A
	cdig @$nsd +dnssec +nocookie signed.test DS
	cdig @$resolver +dnssec www.signed.test A
	cdig @$resolver +dnssec www.nsec3.test A
	cdig @$resolver +dnssec www.bogus.test A
	cdig @$resolver +dnssec +cd www.bogus.test A
	cdig @$resolver +adflag +nocookie txt.signed.test TXT
}
nxdomain() {
	cdig @$resolver nothing.example.test A
	cdig @$nsd +norec nothing.example.test AAAA
	cdig @$bind +norec nothing.types.test A
	cdig @$resolver a.b.c.nothing.test A
	cdig @$resolver -x 192.0.2.200
	ckdig @$resolver nothing.here MX
	ckdig @$resolver here.local.test A
	ckdig @$resolver gone.local.test A
}
nodata() {
	cdig @$resolver only-a.example.test AAAA
	cdig @$nsd +norec only-a.example.test MX
	cdig @$bind +norec t-a.types.test AAAA
	cdig @$resolver ent.empty.signed.test A
	cdig @$resolver empty.signed.test A
	cdig @$bind +norec t-cname.types.test AAAA
	ckdig @$resolver only-a.example.test HTTPS
}
referral() {
	cdig @$nsd +norec types.test A
	cdig @$nsd +norec www.types.test AAAA
	cdig @$nsd +norec +dnssec www.signed.test A
	cdig @$nsd +norec host.sub.example.test A
	cdig @$bind +norec host.insecure.signed.test A
	ckdig @$nsd +norec big.test NS
}
servfail() {
	cdig @$bind broken.test A
	cdig @$bind +noedns broken.test SOA
	cdig @$resolver +noedns mail.bogus.test A
	cdig @$resolver x.broken.test A
}
refused() {
	cdig @$bind www.elsewhere.example A
	cdig @$bind +norec . NS
	cdig @$nsd +norec example.test. CH SOA
	cdig @$resolver no.refused.test A
	cdig -b 192.0.2.11 @$resolver web.cdn.example.test A
}
opcodes() {
	cdig @$bind +opcode=STATUS t-a.types.test A
	cdig @$bind +opcode=IQUERY t-a.types.test A
	cdig @$nsd +opcode=7 web.cdn.example.test A
	cdig @$resolver +opcode=15 web.cdn.example.test A
	cdig @$bind +opcode=NOTIFY types.test SOA
	cdig @$bind +header-only
	cdig @$bind +header-only +noedns
	cdig @$nsd +header-only
}
badvers() {
	cdig @$bind +edns=5 +noednsneg t-a.types.test A
	cdig @$nsd +edns=1 +noednsneg web.cdn.example.test A
	cdig @$resolver +edns=100 +noednsneg web.cdn.example.test A
	cdig @$bind +edns=1 t-a.types.test A
}
chaos() {
	cdig @$bind version.bind CH TXT
	cdig @$bind hostname.bind CH TXT
	cdig @$bind id.server CH TXT
	cdig @$nsd version.server CH TXT
	cdig @$nsd id.server CH TXT
	cdig @$resolver version.bind CH TXT
	cdig @$resolver id.server CH TXT
	cdig @$bind -c HS t-a.types.test A
	cdig @$bind -c ANY t-a.types.test A
	cdig @$bind -c CLASS4711 t-a.types.test A
}
root_names() {
	cdig @$nsd +norec . NS
	cdig @$nsd +norec . SOA
	cdig @$nsd +norec . A
	cdig @$resolver . NS
	cdig @$resolver . DNSKEY
}
update() { # update LINE...: one UPDATE message
	printf '%s\n' "server $bind" 'zone dyn.test' "$@" send | on $C nsupdate -v ${tsig:+-y "$tsig"} -t 5
}
update_udp() { printf '%s\n' "server $bind" 'zone dyn.test' "$@" send | on $C nsupdate ${tsig:+-y "$tsig"} -t 5 -r 0; }
captures_key=hmac-sha256:captures-key:Y2FwdHVyZXMtYXJlLW5vdC1zZWNyZXQtYXQtYWxsLi4=
secondary_has() { until_true 20 has_answer $A @$nsd "$1" "$2" || die "NSD did not get $1"; }
notify_update() {
	update_udp 'update add added.dyn.test 300 A 192.0.2.62' 'update add added.dyn.test 300 TXT "by nsupdate"'
	secondary_has added.dyn.test A
	update_udp 'prereq yxdomain added.dyn.test' 'update delete remove-me.dyn.test A' 'update add again.dyn.test 300 AAAA 2001:db8:1::62'
	secondary_has again.dyn.test AAAA
	update_udp 'prereq nxdomain added.dyn.test' 'update add never.dyn.test 300 A 192.0.2.63' || true
	update_udp 'prereq yxrrset none.dyn.test A' 'update add never.dyn.test 300 A 192.0.2.63' || true
}
tsig() {
	cdig @$bind -y $captures_key t-a.types.test A
	cdig @$bind -y hmac-sha256:unknown-key:Y2FwdHVyZXMtYXJlLW5vdC1zZWNyZXQtYXQtYWxsLi4= t-a.types.test A
	tsig=$captures_key update_udp 'update add keyed.dyn.test 300 A 192.0.2.64'
}
unanswered() {
	cdig @$hole +time=1 www.example.test A || true
	cdig @$hole +time=1 +dnssec www.example.test AAAA || true
	cdig @$resolver web.cdn.example.test A
	ckdig @$hole +timeout=1 +retry=0 www.example.test TXT || true
}
unanswered_icmp() {
	cdig @$closed www.example.test A || true
	cdig @$closed +noedns example.test MX || true
}
firewall() { # firewall NAMESPACE IPTABLES-ARGUMENT...: with the variant that this kernel has
	local ns=$1 t
	shift
	for t in iptables-legacy iptables-nft; do ! on "$ns" $t "$@" || return 0; done
	return 1
}
# The first answer is lost in the resolver's namespace, the answer to the retry is not.
retransmitted() {
	firewall $R -A OUTPUT -o r0 -p udp --sport 53 -m statistic --mode nth --every 2 --packet 0 -j DROP
	on $C dig +tries=2 +time=1 @$resolver web.cdn.example.test A
	on $C kdig +retry=1 +timeout=1 @$resolver web.cdn.example.test A
	on $C python3 "$conf/ask.py" $resolver web.cdn.example.test 1 2 1
	firewall $R -F OUTPUT
}
twice() { # twice NAMESPACE DEVICE: each packet that leaves there is sent twice
	tc -n "$1" qdisc add dev "$2" root netem duplicate 100%
	cdig @$resolver web.cdn.example.test A
	cdig @$resolver www.example.test AAAA
	cdig @$resolver nothing.example.test A
	tc -n "$1" qdisc del dev "$2" root
}
duplicate_answer() { twice $R r0; }
duplicate_query() { twice $C c0; }
case_0x20() {
	fill_in unbound.conf "$work/unbound-0x20.conf" 5353 yes
	ip netns exec $R unbound -d -c "$work/unbound-0x20.conf" >"$work/unbound-0x20.out" 2>&1 &
	local p=$!
	until_true 30 has_answer $R @127.0.0.1 -p 5353 www.example.test A
	on $R dig @127.0.0.1 -p 5353 +tries=1 +time=5 mail.types.test A
	on $R dig @127.0.0.1 -p 5353 +tries=1 +time=5 NoThInG.types.test A
	kill $p
	wait $p || true
}
# A resolver with nothing in its cache asks the authoritative servers for each answer.
forget() { kill -HUP "${pids[2]}"; until_true 20 on $R dig +short +tries=1 +time=1 @127.0.0.1 here.local.test A; }
both_legs() {
	usual $resolver
	cdig @$resolver nothing.example.test A
	cdig @$resolver www.signed.test A
}
mixed() { # a little of everything over IPv4 and IPv6
	cdig @$resolver www.example.test A
	cdig @$resolver6 example.test MX
	cdig @$resolver nothing.example.test A
	cdig @$resolver +dnssec www.signed.test AAAA
	cdig @$bind6 +tcp t-txt.types.test TXT
}
loopback() {
	on $R dig +tries=1 +time=5 @127.0.0.1 www.example.test A
	on $R dig +tries=1 +time=5 @::1 www.example.test AAAA
	on $R dig +tries=1 +time=5 +tcp @127.0.0.1 example.test TXT
}

# pair TYPE-AND-OPTIONS-OF-CLIENT / TYPE-AND-OPTIONS-OF-RESOLVER: a device t0 on both sides with inner addresses.
inner=10.9.0.53 inner6=fd00:9::53
pair() { # pair CLIENT-ARGUMENTS RESOLVER-ARGUMENTS [MTU]
	ip -n $C link add t0 $1
	ip -n $R link add t0 $2
	[ -z "${3-}" ] || { ip -n $C link set t0 mtu "$3"; ip -n $R link set t0 mtu "$3"; }
	pair_up
}
pair_up() {
	wire $C t0 10.9.0.10/24 fd00:9::10/64
	wire $R t0 10.9.0.53/24 fd00:9::53/64
}
pair_down() { ip -n $C link del t0; ip -n $R link del t0; }
through() { # the same few lookups through whatever t0 is; THROUGH says which inner IP versions it carries
	case ${through-46} in *4*)
		until_true 20 has_answer $C @$inner www.example.test A
		cdig @$inner example.test TXT
		cdig @$inner +tcp example.test MX
		;;
	esac
	case ${through-46} in *6*)
		until_true 20 has_answer $C @$inner6 www.example.test AAAA
		cdig @$inner6 nothing.example.test A
		;;
	esac
}

# The same lookups over TCP, each in a connection of its own; the last one meets a closed port.
usual_tcp() { # usual_tcp SERVER [CLOSED-PORT'S-SERVER]
	cdig "@$1" +tcp www.example.test A
	cdig "@$1" +tcp example.test MX
	cdig "@$1" +tcp +dnssec www.signed.test AAAA
	cdig "@$1" +tcp nothing.example.test A
	ckdig "@$1" +tcp text4000.example.test TXT
	[ -z "${2-}" ] || cdig "@$2" +tcp www.example.test A || true
}
tcp_v4() { usual_tcp $resolver $closed; }
tcp_v6() { usual_tcp $resolver6; }
tcp_keepopen() {
	ckdig @$resolver +tcp +keepopen www.example.test A example.test MX nothing.example.test A text1500.example.test TXT www.example.test AAAA
}
# Up to 20 queries wait for their answers in one connection; those that are in unbound's cache overtake the others.
tcp_pipelined() {
	local i
	forget
	for i in 1 2 3 4 5 6 7 8 9 10; do printf 'p%d.wild.example.test A\nexample.test MX\np%d.wild.types.test TXT\n' $i $i; done >"$work/perf"
	cdig @$resolver example.test MX
	on $C dnsperf -m tcp -s $resolver -c 1 -T 1 -q 20 -n 1 -t 5 -d "$work/perf"
}
tcp_axfr() { cdig @$bind big.test AXFR; }
tcp_axfr_types() { cdig @$bind types.test AXFR; }
tcp_axfr_one_answer() { cdig -b 192.0.2.11 @$bind types.test AXFR; }
tcp_axfr_tsig() { cdig @$bind -y $captures_key signed.test AXFR; }
tcp_ixfr() {
	update_udp 'update add ixfr-1.dyn.test 300 A 192.0.2.65'
	update_udp 'update delete start.dyn.test A' 'update add ixfr-2.dyn.test 300 TXT "two"'
	secondary_has ixfr-2.dyn.test TXT
	cdig @$bind dyn.test IXFR=1
	cdig @$bind dyn.test IXFR=4000000
}
tcp_tc_retry() {
	cdig @$nsd +noedns text1500.example.test TXT
	cdig @$resolver +bufsize=512 text1500.example.test TXT
	ckdig @$nsd +bufsize=1232 text4000.example.test TXT
	cdig @$nsd +noedns +ignore text1500.example.test TXT
}
tcp_fastopen() { # the first connection asks for the cookie, the next ones carry their query in the SYN
	ckdig @$resolver +tcp +fastopen www.example.test A
	ckdig @$resolver +tcp +fastopen www.example.test AAAA
	ckdig @$resolver +tcp +fastopen example.test MX
}
tcp_segments() { # both sides tell the other that they take segments of 88 bytes at most
	ip -n $C route change 192.0.2.0/24 dev c0 src 192.0.2.10 advmss 88
	ip -n $R route change 192.0.2.0/24 dev r0 src 192.0.2.53 advmss 88
	cdig @$resolver +tcp text1500.example.test TXT
	cdig @$resolver +tcp +ednsopt=65001:"$(printf 'ab%.0s' {1..300})" www.example.test A
	ckdig @$resolver +tcp +keepopen www.example.test A example.test MX www.signed.test A +dnssec
	ip -n $C route change 192.0.2.0/24 dev c0 src 192.0.2.10
	ip -n $R route change 192.0.2.0/24 dev r0 src 192.0.2.53
}
tcp_reordered() { # every third packet does not wait and so overtakes
	tc -n $R qdisc add dev r0 root netem delay 20ms reorder 100% gap 3
	cdig @$bind big.test AXFR
	cdig -b 192.0.2.11 @$bind signed.test AXFR
	tc -n $R qdisc del dev r0 root
}
tcp_loss() { # every fourth data packet to the client is lost between r1 and r0
	firewall $R -A FORWARD -o r0 -p tcp --sport 53 -m length --length 100:1500 -m statistic --mode nth --every 4 --packet 1 -j DROP
	cdig @$bind big.test AXFR
	cdig -b 192.0.2.11 @$bind signed.test AXFR
	firewall $R -F FORWARD
}
tcp_junk() { # other protocols on port 53
	on $C timeout 1 bash -c 'exec 3<>/dev/tcp/192.0.2.53/53; printf "GET / HTTP/1.1\r\nHost: resolver\r\n\r\n" >&3; cat <&3' || true
	on $C timeout 1 bash -c 'exec 3<>/dev/tcp/198.51.100.54/53; printf "SSH-2.0-OpenSSH_9.2\r\n" >&3; cat <&3' || true
	on $C timeout 1 bash -c 'exec 3<>/dev/tcp/198.51.100.53/53; printf "\0\0\0\0\0\2ab" >&3; cat <&3' || true
	cdig @$resolver +tcp www.example.test A
}

# small_mtu BYTES: of the link between client and resolver. Below 1280 it has no IPv6; 1500 brings that back.
small_mtu() {
	ip -n $C link set c0 mtu $1
	ip -n $R link set r0 mtu $1
	[ $1 = 1500 ] || return 0
	ip -n $C addr replace 2001:db8:1::10/64 dev c0 nodad
	ip -n $R addr replace 2001:db8:1::53/64 dev r0 nodad
	ip -n $C route replace default via 2001:db8:1::53
}
ask() { on $C python3 "$conf/ask.py" "$@"; }
# long_both_ways SERVER: answers of several fragments, then queries of several fragments
long_both_ways() {
	cdig @$1 +bufsize=4096 text1500.example.test TXT
	cdig @$1 +bufsize=4096 text4000.example.test TXT
	ask $1 www.example.test 28 1 5 1600
	ask $1 text1500.example.test 16 1 5 1700
}
frag_v4() {
	small_mtu 576
	long_both_ways $resolver
	small_mtu 1500
}
frag_v6() {
	small_mtu 1280
	long_both_ways $resolver6
	small_mtu 1500
}
frag_reordered() { # netem sends every second fragment without delay
	tc -n $R qdisc add dev r0 root netem delay 30ms reorder 100% gap 2
	tc -n $C qdisc add dev c0 root netem delay 30ms reorder 100% gap 2
	long_both_ways $resolver
	long_both_ways $resolver6
	tc -n $R qdisc del dev r0 root
	tc -n $C qdisc del dev c0 root
}
frag_vlan() { long_both_ways $inner; }
frag_inner() {
	until_true 20 has_answer $C @$inner www.example.test A
	long_both_ways $inner
	long_both_ways $inner6
}
frag_outer() {
	small_mtu 576
	until_true 20 has_answer $C @$inner www.example.test A
	cdig @$inner +bufsize=4096 text1500.example.test TXT
	cdig @$inner6 +bufsize=4096 text1500.example.test TXT
	ask $inner www.example.test 28 1 5 1000
	small_mtu 1500
}

tunnel_ports() { # clients whose own port is that of a tunnel
	local p
	for p in 4789 8472 6081 2152 3544 4754 6635; do
		cdig -b 192.0.2.10#$p @$resolver www.example.test A
		cdig -b 2001:db8:1::10#$p @$resolver6 example.test MX
	done
}
nflog() {
	firewall $R -A INPUT -i r0 -p udp --dport 53 -j NFLOG --nflog-group 5
	firewall $R -A OUTPUT -o r0 -p udp --sport 53 -j NFLOG --nflog-group 5
	udp_v4
	firewall $R -F INPUT
	firewall $R -F OUTPUT
}

make_dns() {
	in_group dns
	capture udp-v4 $C c0 udp_v4
	capture udp-v6 $C c0 udp_v6
	capture rrtypes $C c0 rrtypes
	capture names-escaped $C c0 names
	capture any-query $C c0 any
	capture edns $C c0 edns
	capture ecs $R any ecs -y LINUX_SLL2
	capture ede $C c0 ede
	capture nsid-cookie $C c0 nsid_cookie
	capture dnssec $C c0 dnssec
	capture nxdomain $C c0 nxdomain
	capture nodata $C c0 nodata
	capture referral $C c0 referral
	capture servfail $C c0 servfail
	capture refused $C c0 refused
	capture opcodes $C c0 opcodes
	capture badvers $C c0 badvers
	capture chaos $C c0 chaos
	capture root-names $C c0 root_names
	capture notify-update $A any notify_update -y LINUX_SLL2
	capture tsig $C c0 tsig
	capture unanswered $C c0 unanswered
	capture unanswered-icmp $C c0 unanswered_icmp
	capture retransmitted $C c0 retransmitted
	capture duplicate-answer $C c0 duplicate_answer
	capture duplicate-query $R r0 duplicate_query
	capture case-0x20 $R r1 case_0x20
	if want resolver-both-legs; then
		forget
		record resolver-client $R r0
		record resolver-server $R r1
		both_legs >>"$work/clients.log"
		finish resolver-client
		finish resolver-server
	fi
}

vlan_up() { # vlan_up OUTER-PROTOCOL OUTER-ID [INNER-ID]
	local n d
	for n in $C:c0 $R:r0; do
		d=${n#*:} n=${n%:*}
		ip -n $n link add link $d name t0 type vlan proto $1 id $2
		if [ -n "${3-}" ]; then
			ip -n $n link set t0 name t1
			ip -n $n link set t1 up
			ip -n $n link add link t1 name t0 type vlan proto 802.1Q id $3
		fi
	done
	pair_up
}
vlan_down() {
	local n
	for n in $C $R; do
		ip -n $n link del t0
		ip -n $n link del t1 2>/dev/null || true
	done
}

make_links() {
	in_group links
	if wants vlan vlan-any-sll2; then
		vlan_up 802.1Q 100
		capture vlan $C c0 through
		capture vlan-any-sll2 $R any through -y LINUX_SLL2
		vlan_down
	fi
	if wants qinq; then
		vlan_up 802.1ad 200 100
		capture qinq $C c0 through
		vlan_down
	fi
	if wants qinq-8100; then
		vlan_up 802.1Q 200 100
		capture qinq-8100 $C c0 through
		vlan_down
	fi
	capture any-sll2 $R any mixed -y LINUX_SLL2
	capture any-sll1 $R any mixed -y LINUX_SLL
	capture loopback $R lo loopback
	if wants raw; then
		# libpcap takes a sit device as raw IP; in this mode it carries both IP versions.
		pair 'type sit mode any local 192.0.2.10 remote 192.0.2.53' 'type sit mode any local 192.0.2.53 remote 192.0.2.10'
		capture raw $C t0 through
		pair_down
	fi
	capture nanosecond $C c0 mixed --time-stamp-precision=nano
}

make_tcp() {
	in_group tcp
	capture tcp-v4 $C c0 tcp_v4
	capture tcp-v6 $C c0 tcp_v6
	capture tcp-keepopen $C c0 tcp_keepopen
	capture tcp-pipelined $C c0 tcp_pipelined
	capture tcp-axfr $C c0 tcp_axfr
	capture tcp-axfr-types $C c0 tcp_axfr_types
	capture tcp-axfr-one-answer $C c0 tcp_axfr_one_answer
	capture tcp-axfr-tsig $C c0 tcp_axfr_tsig
	capture tcp-ixfr $C c0 tcp_ixfr
	capture tcp-tc-retry $C c0 tcp_tc_retry
	capture tcp-fastopen $C c0 tcp_fastopen
	capture tcp-segments $C c0 tcp_segments
	capture tcp-reordered $C c0 tcp_reordered
	if wants tcp-retransmit tcp-loss; then
		record tcp-retransmit $R r1
		record tcp-loss $C c0
		tcp_loss >>"$work/clients.log" 2>&1
		finish tcp-retransmit
		finish tcp-loss
	fi
	capture tcp-junk $C c0 tcp_junk
}

make_frag() {
	in_group frag
	capture frag-v4 $C c0 frag_v4
	capture frag-v6 $C c0 frag_v6
	capture frag-reordered $C c0 frag_reordered
	if wants frag-vlan; then
		vlan_up 802.1Q 100
		capture frag-vlan $C c0 frag_vlan
		vlan_down
	fi
	if wants frag-inner; then
		pair 'type gre local 192.0.2.10 remote 192.0.2.53' 'type gre local 192.0.2.53 remote 192.0.2.10' 1300
		capture frag-inner $C c0 frag_inner
		pair_down
	fi
	if wants frag-outer; then
		pair 'type vxlan id 42 local 192.0.2.10 remote 192.0.2.53 dstport 4789' 'type vxlan id 42 local 192.0.2.53 remote 192.0.2.10 dstport 4789' 1450
		capture frag-outer $C c0 frag_outer
		pair_down
	fi
}

tunnel() { # tunnel NAME OUTER INNER TYPE [OPTION...]: OUTER is 4 or 6, INNER is 4, 6 or 46
	local name=$1 outer=$2 through=$3 type=$4 c=192.0.2.10 r=192.0.2.53
	shift 4
	want "$name" || return 0
	if [ $outer = 6 ]; then c=2001:db8:1::10 r=2001:db8:1::53; fi
	if [ $type = geneve ]; then
		pair "type geneve remote $r $*" "type geneve remote $c $*"
	else
		pair "type $type local $c remote $r $*" "type $type local $r remote $c $*"
	fi
	capture "$name" $C c0 through
	pair_down
}
nested_up() { # VXLAN in GRE
	pair 'type gretap local 192.0.2.10 remote 192.0.2.53' 'type gretap local 192.0.2.53 remote 192.0.2.10'
	local n=$C m=$R a=10 b=53
	for n in $C:10:53 $R:53:10; do
		IFS=: read -r m a b <<<"$n"
		ip -n $m addr flush dev t0
		ip -n $m addr add 10.8.0.$a/24 dev t0
		ip -n $m link add t1 type vxlan id 7 local 10.8.0.$a remote 10.8.0.$b dstport 4789
		wire $m t1 10.9.0.$a/24 fd00:9::$a/64
	done
}
mpls_up() { # two labels to the resolver, one back
	local n
	for n in $C:c0 $R:r0; do
		on ${n%:*} sysctl -qw net.mpls.platform_labels=1000 net.mpls.conf.lo.input=1 net.mpls.conf.${n#*:}.input=1
	done
	wire $C lo 10.9.0.10/32 fd00:9::10/128
	wire $R lo 10.9.0.53/32 fd00:9::53/128
	ip -n $R -f mpls route add 100 dev lo
	ip -n $R -f mpls route add 200 dev lo
	ip -n $C -f mpls route add 300 dev lo
	ip -n $C route add 10.9.0.53/32 encap mpls 100/200 via inet 192.0.2.53 src 10.9.0.10
	ip -n $C -6 route add fd00:9::53/128 encap mpls 100/200 via inet6 2001:db8:1::53 src fd00:9::10
	ip -n $R route add 10.9.0.10/32 encap mpls 300 via inet 192.0.2.10 src 10.9.0.53
	ip -n $R -6 route add fd00:9::10/128 encap mpls 300 via inet6 2001:db8:1::10 src fd00:9::53
}
mpls_down() {
	ip -n $C route del 10.9.0.53/32
	ip -n $C -6 route del fd00:9::53/128
	ip -n $R route del 10.9.0.10/32
	ip -n $R -6 route del fd00:9::10/128
	ip -n $C addr del 10.9.0.10/32 dev lo
	ip -n $C addr del fd00:9::10/128 dev lo
	ip -n $R addr del 10.9.0.53/32 dev lo
	ip -n $R addr del fd00:9::53/128 dev lo
}

session_up() { ip -n $C addr show | grep -q 'peer 10.9.0.53'; }
# A PPPoE session from discovery to its end, between pppd at the client and pppoe-server at the resolver.
pppoe_session() {
	printf '%s\n' noauth nodetach noccp novj noipv6 nodefaultroute 'ip-up-script /bin/true' 'ip-down-script /bin/true' >"$work/pppoe.options"
	doing=pppoe
	ip netns exec $R pppoe-server -F -I r0 -L 10.9.0.53 -R 10.9.0.10 -N 1 -O "$work/pppoe.options" >>"$work/pppoe.log" 2>&1 &
	local server=$!
	ip netns exec $C pppd plugin rp-pppoe.so c0 file "$work/pppoe.options" noipdefault user captures >>"$work/pppoe.log" 2>&1 &
	local client=$!
	until_true 30 session_up || die "no session: $(tail -n 12 "$work/pppoe.log")"
	through=4 through
	kill $client
	wait $client || true
	kill $server
	wait $server || true
	doing=''
}

make_tunnels() {
	in_group tunnels
	tunnel vxlan 4 46 vxlan id 42 dstport 4789
	tunnel vxlan-8472 4 46 vxlan id 42 dstport 8472
	tunnel vxlan-v6 6 46 vxlan id 42 dstport 4789
	tunnel geneve 4 46 geneve id 42
	tunnel gre 4 46 gre
	tunnel gre-key-csum-seq 4 46 gre key 7 csum seq
	tunnel gretap 4 46 gretap
	tunnel ip6gre 6 46 ip6gre
	tunnel ip6gretap 6 46 ip6gretap
	tunnel ipip 4 4 ipip
	tunnel sit 4 6 sit
	tunnel ip6tnl 6 46 ip6tnl mode any
	tunnel ip6tnl-no-option 6 46 ip6tnl mode any encaplimit none
	tunnel erspan-1 4 46 erspan seq key 30 erspan_ver 1 erspan 123
	tunnel erspan-2 4 46 erspan seq key 31 erspan_ver 2 erspan_dir ingress erspan_hwid 7
	if wants nested; then
		nested_up
		capture nested $C c0 through
		ip -n $C link del t1
		ip -n $R link del t1
		pair_down
	fi
	if wants mpls; then
		mpls_up
		capture mpls $C c0 through
		mpls_down
	fi
	if wants pppoe; then
		record pppoe $C c0
		pppoe_session >>"$work/clients.log" 2>&1
		finish pppoe
	fi
	if wants vlan-vxlan; then
		vlan_up 802.1Q 100
		# The tunnel runs over the tagged device.
		local n m a b
		for n in $C:10:53 $R:53:10; do
			IFS=: read -r m a b <<<"$n"
			ip -n $m addr flush dev t0
			ip -n $m addr add 10.8.0.$a/24 dev t0
			ip -n $m link add t2 type vxlan id 8 local 10.8.0.$a remote 10.8.0.$b dstport 4789
			wire $m t2 10.9.0.$a/24 fd00:9::$a/64
		done
		capture vlan-vxlan $C c0 through
		ip -n $C link del t2
		ip -n $R link del t2
		vlan_down
	fi
	capture client-on-tunnel-port $C c0 tunnel_ports
	filter='' capture nflog $R nflog:5 nflog
}

make_files() {
	in_group files
	capture snaplen-80 $C c0 mixed -s 80
	capture snaplen-160 $C c0 frag_v4 -s 160
}

capture_stage() {
	: >"$work/clients.log"
	trap 'failed_at; cleanup' EXIT
	network_up
	servers_up
	make_dns
	make_links
	make_tcp
	make_frag
	make_tunnels
	make_files
	cleanup
	trap - EXIT
}

# ----------------------------------------------------------------------------------------------- user-mode Linux

kernel_has_all() {
	local n=$tag-probe ok=true
	ip netns add "$n"
	{
		ip -n "$n" link add p0 type veth peer name p1 &&
			ip -n "$n" link add link p0 name p2 type vlan id 5 &&
			ip -n "$n" link add p3 type gretap local 192.0.2.1 remote 192.0.2.2 &&
			ip -n "$n" link add p4 type ip6tnl mode any local 2001:db8::1 remote 2001:db8::2 &&
			ip -n "$n" link add p5 type geneve id 1 remote 192.0.2.2 &&
			tc -n "$n" qdisc add dev p0 root netem duplicate 100% &&
			{ on "$n" iptables-legacy -L || on "$n" iptables-nft -L; }
	} >/dev/null 2>&1 || ok=false
	ip netns del "$n"
	$ok
}

in_uml() { # in_uml GROUP-OR-NAME...
	cat >"$tmp/init" <<-I
		#!/bin/bash
		export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/run TMPDIR=/run
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		mount -t tmpfs tmp /run
		mkdir -p /dev/pts /dev/shm
		mount -t devpts pts /dev/pts
		mkdir -p /run/out /run/netns /run/modules/lib
		ln -s /usr/lib/uml/modules /run/modules/lib/modules
		printf '#!/bin/sh\nexec modprobe -d /run/modules "\$@"\n' >/run/modprobe
		chmod +x /run/modprobe
		echo /run/modprobe >/proc/sys/kernel/modprobe
		mount -t hostfs none /run/out -o "$out"
		ip link set lo up
		for m in veth tun 8021q sch_netem ip_gre ip6_gre ipip sit ip6_tunnel geneve vxlan mpls_iptunnel mpls_gso iptable_filter xt_tcpudp xt_statistic xt_NFLOG nfnetlink_log pppoe ppp_async ppp_generic; do
			modprobe -d /run/modules \$m
		done
		if GPD_OUT=/run/out "$here/make-captures.sh" --stage-capture $* </dev/null; then
			touch /run/out/.complete
		else
			mkdir -p /run/out/.log && cp -r /run/captures-work/*.log /run/captures-work/unbound/*.log /run/out/.log/
		fi
		sync
		halt -f -p || echo o >/proc/sysrq-trigger
	I
	chmod +x "$tmp/init"
	# The console is its standard output; what the script says on it is passed on, the kernel's own lines are not. A SIGSTOP
	# or SIGCONT that reaches its processes from outside is its end, so it gets several tries.
	local try
	for try in 1 2 3 4 5; do
		timeout --foreground -k 5 900 linux.uml mem=768M rootfstype=hostfs rootflags=/ ro "init=$tmp/init" \
			con=null con0=fd:0,fd:1 </dev/null 2>&1 | stdbuf -oL tr -d '\r' | tee "$tmp/console" | grep --line-buffered '^make-captures' >&2 || true
		grep -q '^Call Trace' "$tmp/console" || break
		say "user-mode Linux broke down (try $try of 5)"
	done
	if [ ! -e "$out/.complete" ]; then
		tail -40 "$tmp/console" >&2
		tail -n 8 "$out"/.log/*.log >&2 || true
		die "user-mode Linux did not complete the captures"
	fi
	rm "$out/.complete"
}

# --------------------------------------------------------------------------------- derived captures, checks, result

# derive NAME FROM...: true when NAME is wanted and every capture that it is made from is there.
derive() {
	want "$1" || return 1
	local f
	shift
	for f in "$@"; do
		[ -e "$out/$f.pcap" ] || cp "$target/$f.pcap" "$out/" || die "$f.pcap is needed first"
	done
}
rewrite() { python3 "$conf/rewrite.py" "$@"; }

derive_all() {
	local f=$out/udp-v4.pcap
	in_group dns
	want resolver-both-legs && mergecap -F pcap -w "$out/resolver-both-legs.pcap" "$out/resolver-client.pcap" "$out/resolver-server.pcap"
	rm -f "$out/resolver-client.pcap" "$out/resolver-server.pcap"
	derive response-first udp-v4 && {
		# The second and the fourth packet are answers; they come before their queries here, with their own times.
		editcap -F pcap -r "$f" "$tmp/1.pcap" 2
		editcap -F pcap -r "$f" "$tmp/2.pcap" 1
		editcap -F pcap -r "$f" "$tmp/3.pcap" 4
		editcap -F pcap -r "$f" "$tmp/4.pcap" 3
		mergecap -a -F pcap -w "$out/response-first.pcap" "$tmp"/{1,2,3,4}.pcap
	}
	in_group links
	derive loopback-both-copies loopback && {
		editcap -F pcap -t 0.000001 "$out/loopback.pcap" "$tmp/later.pcap"
		mergecap -F pcap -w "$out/loopback-both-copies.pcap" "$out/loopback.pcap" "$tmp/later.pcap"
	}
	derive qinq-9100 qinq && rewrite 9100 "$out/qinq.pcap" "$out/qinq-9100.pcap"
	derive big-endian udp-v4 && rewrite big-endian "$f" "$out/big-endian.pcap"
	derive null udp-v4 udp-v6 && {
		mergecap -F pcap -w "$tmp/46.pcap" "$f" "$out/udp-v6.pcap"
		rewrite null "$tmp/46.pcap" "$out/null.pcap"
	}
	derive loop udp-v6 && rewrite loop "$out/udp-v6.pcap" "$out/loop.pcap"
	derive ppp udp-v4 && rewrite ppp "$f" "$out/ppp.pcap"
	derive raw-bsd udp-v4 && rewrite raw-bsd "$f" "$out/raw-bsd.pcap"
	derive raw-ipv4 udp-v4 && rewrite raw-ipv4 "$f" "$out/raw-ipv4.pcap"
	derive raw-ipv6 udp-v6 && rewrite raw-ipv6 "$out/udp-v6.pcap" "$out/raw-ipv6.pcap"
	in_group tcp
	derive tcp-mid tcp-axfr-one-answer && editcap -F pcap "$out/tcp-axfr-one-answer.pcap" "$out/tcp-mid.pcap" 1-40
	derive tcp-lossy tcp-axfr-one-answer && editcap -F pcap "$out/tcp-axfr-one-answer.pcap" "$out/tcp-lossy.pcap" 25 26 60-64 101
	derive tcp-one-side tcp-keepopen && tshark -n -r "$out/tcp-keepopen.pcap" -F pcap -w "$out/tcp-one-side.pcap" -Y 'tcp.srcport == 53' 2>/dev/null
	in_group frag
	derive frag-lossy frag-v4 && editcap -F pcap "$out/frag-v4.pcap" "$out/frag-lossy.pcap" 3 8
	in_group tunnels
	derive teredo udp-v6 && rewrite teredo "$out/udp-v6.pcap" "$out/teredo.pcap"
	derive ieee80211 udp-v4 && rewrite ieee80211 "$f" "$out/ieee80211.pcap"
	derive radiotap udp-v6 && rewrite radiotap "$out/udp-v6.pcap" "$out/radiotap.pcap"
	in_group files
	derive pcapng udp-v4 && editcap -F pcapng "$f" "$out/pcapng.pcapng"
	derive pcapng-nanosecond nanosecond && editcap -F pcapng "$out/nanosecond.pcap" "$out/pcapng-nanosecond.pcapng"
	derive pcapng-two-interfaces udp-v4 any-sll2 && mergecap -F pcapng -w "$out/pcapng-two-interfaces.pcapng" "$f" "$out/any-sll2.pcap"
	derive pcapng-two-sections udp-v4 any-sll2 && {
		editcap -F pcapng "$f" "$tmp/a.pcapng"
		rewrite pcapng-big-endian "$out/any-sll2.pcap" "$tmp/b.pcapng"
		cat "$tmp/a.pcapng" "$tmp/b.pcapng" >"$out/pcapng-two-sections.pcapng"
	}
	derive pcapng-big-endian udp-v6 && rewrite pcapng-big-endian "$out/udp-v6.pcap" "$out/pcapng-big-endian.pcapng"
	derive gzip udp-v4 && gzip -9nc "$f" >"$out/gzip.pcap.gz"
	derive zstd udp-v4 && zstd -q19 -c "$f" >"$out/zstd.pcap.zst"
	derive rotated-1 udp-v4 && editcap -F pcap -r "$f" "$out/rotated-1.pcap" 1-7
	derive rotated-2 udp-v4 && editcap -F pcap "$f" "$out/rotated-2.pcap" 1-7
	true
}

# check NAME COUNT FILTER: the capture, if it was made, has at least COUNT packets that tshark's FILTER passes.
check() {
	local f n
	checked[${1%%.*}]=1
	f=$out/$1
	[ -e "$f" ] || f=$out/$1.pcap
	[ -e "$f" ] || return 0
	n=$(tshark -n -r "$f" -Y "$3" -T fields -e frame.number 2>"$tmp/tshark" | wc -l) || { say "$1: $(cat "$tmp/tshark")"; n=0; }
	[ "$n" -ge "$2" ] || { say "$1: $n packets are \"$3\", at least $2 expected"; failed=1; }
}
declare -A checked
failed=''

check_all() {
	check udp-v4 14 'ip && udp && dns'
	check udp-v6 14 'ipv6 && udp && dns'
	check rrtypes 200 'dns'
	check rrtypes 100 'dns.flags.response == 1 && dns.flags.rcode == 0 && dns.count.answers > 0'
	check names-escaped 15 'dns.flags.response == 1 && dns.count.answers > 0'
	check any-query 8 'dns.qry.type == 255'
	check edns 10 'dns.resp.type == 41'
	check ecs 10 'dns.opt.code == 8 && dns.flags.response == 1'
	check ede 3 'dns.opt.code == 15'
	check nsid-cookie 3 'dns.opt.code == 3 && dns.opt.code == 10 && dns.flags.response == 1'
	check dnssec 5 'dns.resp.type == 46'
	check dnssec 1 'dns.resp.type == 50'
	check dnssec 1 'dns.resp.type == 47'
	check nxdomain 6 'dns.flags.rcode == 3'
	check nodata 6 'dns.flags.response == 1 && dns.flags.rcode == 0 && dns.count.auth_rr > 0'
	check referral 5 'dns.flags.response == 1 && dns.count.answers == 0 && dns.resp.type == 2'
	check servfail 4 'dns.flags.rcode == 2'
	check refused 5 'dns.flags.rcode == 5'
	check opcodes 2 'dns.flags.rcode == 4'
	check opcodes 1 'dns.flags.rcode == 1'
	check badvers 3 'dns.resp.ext_rcode == 1'
	check chaos 6 'dns.qry.class == 3'
	check root-names 4 'dns.qry.name == "<Root>"'
	check notify-update 4 'dns.flags.opcode == 5'
	check notify-update 2 'dns.flags.opcode == 4'
	check tsig 4 'dns.resp.type == 250'
	check unanswered 3 'ip.dst == 198.51.100.99 && dns'
	check unanswered-icmp 1 'icmp.type == 3'
	check retransmitted 1 'dns.retransmission'
	check duplicate-answer 3 'dns.retransmit_response'
	check duplicate-query 3 'dns.retransmit_request'
	check case-0x20 1 'dns.qry.name matches "[A-Z]" && dns.qry.name matches "[a-z]"'
	check resolver-both-legs 1 'dns && eth.addr == 02:00:00:00:01:53'
	check resolver-both-legs 1 'dns && eth.addr == 02:00:00:00:02:02'
	check response-first 2 'frame.time_delta < 0'
	check vlan 8 'vlan.id == 100 && dns'
	check vlan-any-sll2 4 'sll && dns'
	check qinq 8 'eth.type == 0x88a8 && dns'
	check qinq-8100 8 'vlan.id == 100 && vlan.id == 200 && dns'
	check qinq-9100 8 'eth.type == 0x9100 && dns'
	check any-sll2 10 'sll && dns'
	check any-sll1 10 'sll && dns'
	check loopback 4 'dns && (ip.src == 127.0.0.1 || ipv6.src == ::1)'
	check loopback-both-copies 8 'dns && (ip.src == 127.0.0.1 || ipv6.src == ::1)'
	check raw 4 'frame.encap_type == 7 && dns && ip'
	check raw 4 'frame.encap_type == 7 && dns && ipv6'
	check null 20 'null && dns'
	check loop 14 'null && dns'
	check ppp 14 'ppp && dns'
	check raw-bsd 14 'dns'
	check raw-ipv4 14 'ip && dns'
	check raw-ipv6 14 'ipv6 && dns'
	check nanosecond 8 'dns'
	check big-endian 14 'dns'
	check tcp-v4 5 'tcp && dns.flags.response == 1'
	check tcp-v4 1 'tcp.flags.reset == 1'
	check tcp-v6 5 'ipv6 && tcp && dns.flags.response == 1'
	check tcp-keepopen 5 'tcp.stream == 0 && dns.flags.response == 1'
	check tcp-pipelined 10 'tcp && dns.flags.response == 1'
	check tcp-axfr 1 'tcp && dns.qry.type == 252 && dns.flags.response == 1'
	check tcp-axfr-types 1 'tcp && dns.qry.type == 252 && dns.flags.response == 1'
	check tcp-axfr-one-answer 50 'tcp && dns.flags.response == 1'
	check tcp-axfr-tsig 1 'dns.qry.type == 252 && dns.resp.type == 250'
	check tcp-ixfr 2 'tcp && dns.qry.type == 251 && dns.flags.response == 1'
	check tcp-tc-retry 3 'udp && dns.flags.truncated == 1'
	check tcp-tc-retry 3 'tcp && dns.flags.response == 1'
	check tcp-fastopen 2 'tcp.flags.syn == 1 && tcp.len > 0'
	check tcp-segments 20 'tcp.srcport == 53 && tcp.len > 0 && tcp.len <= 88'
	check tcp-segments 4 'tcp.dstport == 53 && tcp.len > 0 && tcp.len <= 88'
	check tcp-reordered 2 'tcp.analysis.out_of_order || tcp.analysis.lost_segment'
	check tcp-retransmit 2 'tcp.analysis.retransmission'
	check tcp-loss 2 'tcp.analysis.lost_segment || tcp.analysis.out_of_order || tcp.analysis.retransmission'
	check tcp-junk 3 'tcp.dstport == 53 && tcp.len > 0'
	check tcp-mid 40 'tcp.stream == 0 && tcp.flags.syn == 0'
	check tcp-lossy 1 'tcp.analysis.lost_segment'
	check tcp-one-side 5 'tcp.srcport == 53 && tcp.len > 0'
	check frag-v4 10 'ip.frag_offset > 0'
	check frag-v4 4 'dns && ip.fragments'
	check frag-v4 1 'dns.flags.response == 0 && ip.fragments'
	check frag-v6 6 'ipv6.fraghdr.offset > 0'
	check frag-v6 1 'dns.flags.response == 0 && ipv6.fragments'
	check frag-reordered 2 'dns && ip.flags.mf == 1'
	check frag-reordered 1 'dns && ipv6.fraghdr.more == 1'
	check frag-vlan 4 'vlan.id == 100 && ip.frag_offset > 0'
	check frag-vlan 2 'vlan.id == 100 && dns && ip.fragments'
	check frag-inner 3 'gre && (ip.frag_offset > 0 || ipv6.fraghdr.offset > 0)'
	check frag-outer 2 'vxlan && dns && ip.fragments'
	check frag-lossy 4 'ip.frag_offset > 0'
	check vxlan 6 'udp.dstport == 4789 && vxlan && dns'
	check vxlan-8472 6 'udp.dstport == 8472'
	check vxlan-v6 6 'ipv6 && vxlan && dns'
	check geneve 6 'geneve && dns'
	check gre 6 'gre && dns'
	check gre-key-csum-seq 6 'gre.key && gre.flags.checksum == 1 && gre.flags.sequence_number == 1 && dns'
	check gretap 6 'gre.proto == 0x6558 && dns'
	check ip6gre 6 'ipv6 && gre && dns'
	check ip6gretap 6 'ipv6 && gre.proto == 0x6558 && dns'
	check ipip 4 'ip.proto == 4 && dns'
	check sit 4 'ip.proto == 41 && dns'
	check ip6tnl 2 'ipv6 && ip && dns'
	check ip6tnl 2 'ipv6.dstopts && dns'
	check ip6tnl-no-option 2 'ipv6.nxt == 41 && dns'
	check ip6tnl-no-option 2 'ipv6.nxt == 4 && dns'
	check erspan-1 6 'erspan.version == 1 && dns'
	check erspan-2 6 'erspan.version == 2 && dns'
	check nested 6 'gre && vxlan && dns'
	check mpls 6 'mpls && dns'
	check pppoe 4 'pppoes && dns'
	check vlan-vxlan 6 'vlan.id == 100 && vxlan && dns'
	check client-on-tunnel-port 14 'udp.srcport == 53'
	check nflog 12 'nflog && dns'
	check teredo 12 'teredo && dns'
	check ieee80211 12 'wlan && dns'
	check radiotap 12 'radiotap && dns'
	check snaplen-80 4 'frame.cap_len == 80 && frame.len > 80'
	check snaplen-160 4 'frame.cap_len == 160 && frame.len > 160'
	check pcapng.pcapng 14 'dns'
	check pcapng-nanosecond.pcapng 8 'dns'
	check pcapng-two-interfaces.pcapng 10 'frame.interface_id == 1 && dns'
	check pcapng-two-sections.pcapng 20 'dns'
	check pcapng-big-endian.pcapng 14 'dns'
	check gzip.pcap.gz 14 'dns'
	check zstd.pcap.zst 14 'dns'
	check rotated-1 7 'dns'
	check rotated-2 7 'dns'
}

# -------------------------------------------------------------------------------------------------------------- run

if [ $stage = capture ]; then
	work=/run/captures-work out=$GPD_OUT
	mkdir -p $work
	capture_stage
	exit 0
fi

[ "$(id -u)" = 0 ] || die "run it as root: it makes network namespaces"
need() { # need PACKAGE COMMAND...
	local package=$1 c
	shift
	for c in "$@"; do
		command -v "$c" >/dev/null || { missing+=("$package"); break; }
	done
}
missing=()
need bind9 named
need bind9-utils dnssec-signzone named-checkzone
need bind9-dnsutils dig nsupdate
need unbound unbound
need nsd nsd
need knot-dnsutils kdig
need dnsperf dnsperf
need tcpdump tcpdump
need tshark tshark
need wireshark-common editcap mergecap
need iproute2 ip tc
need iptables iptables-legacy
need ethtool ethtool
need procps sysctl
need ppp pppd
need pppoe pppoe-server
need python3 python3
need zstd zstd
if [ ${#missing[@]} -gt 0 ]; then
	say "installing ${missing[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
tmp=$(mktemp -d /var/tmp/captures.XXXXXX)
trap 'rm -rf "$tmp"' EXIT
out=$tmp/out
mkdir -p "$out" "$target"
if [ $kernel = auto ]; then
	kernel=uml
	! kernel_has_all || kernel=native
fi
if [ $kernel = uml ]; then
	command -v linux.uml >/dev/null && command -v modprobe >/dev/null ||
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends user-mode-linux kmod >/dev/null
	say "going on in user-mode Linux"
	# One run a group: shorter runs are repeated more easily.
	groups=() names=()
	[ ${#wanted[@]} -gt 0 ] && args=("${wanted[@]}") || args=(dns links tcp frag tunnels files)
	for w in "${args[@]}"; do
		case $w in
		dns | links | tcp | frag | tunnels | files) groups+=("$w") ;;
		*) names+=("$w") ;;
		esac
	done
	[ ${#names[@]} -eq 0 ] || in_uml "${names[@]}"
	for w in "${groups[@]}"; do in_uml "$w"; done
else
	work=$tmp/work
	mkdir -p "$work"
	(capture_stage)
fi
derive_all
for w in "${wanted[@]}"; do
	[ -n "${group_of[$w]-}" ] || [[ " ${group_of[*]} dns links tcp frag tunnels files " == *" $w "* ]] || ls "$out/$w".* >/dev/null 2>&1 || die "there is no group or capture \"$w\""
done
check_all
for f in "$out"/*; do
	n=$(basename "$f")
	[ -n "${checked[${n%%.*}]-}" ] || { say "$n: nothing checks it"; failed=1; }
	[ "$(stat -c %s "$f")" -le 65536 ] || { say "$n: $(stat -c %s "$f") bytes are more than 64 KiB"; failed=1; }
done
[ -z "$failed" ] || { rm -rf /var/tmp/captures.failed; cp -r "$out" /var/tmp/captures.failed; die "nothing was replaced; what was captured is in /var/tmp/captures.failed"; }
mv "$out"/* "$target/"
say "done: $(ls "$target" | wc -l) files, $(du -sk "$target" | cut -f1) KiB in $target"
