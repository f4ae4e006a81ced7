#!/bin/sh
# minimal-firewall.sh - the smallest IPv4+IPv6 firewall that works with knockknock
#
# usage: minimal-firewall.sh [--reject] [--keep PORT[/udp]]... [--try SECONDS]
#                            [--nftables | --iptables] [--force] [--dry-run]
#        minimal-firewall.sh --confirm | --remove | --help
#
#   --reject       answer what is refused with a TCP reset or an ICMP port-unreachable;
#                  without it, it is dropped in silence
#   --keep PORT    leave this TCP port (or UDP port: PORT/udp) open to all; repeatable
#   --try SECONDS  put the old rules back after SECONDS, unless they are confirmed before
#                  that: by Enter, or by --confirm from any shell (best a new login)
#   --confirm      keep the rules of a --try
#   --remove       take away what this script placed, and nothing else
#   --nftables, --iptables
#                  use this one; otherwise nftables where nft works, else iptables
#   --force        go on although another firewall already filters input
#   --dry-run      show what would be applied, change nothing
#
# Input is refused, except loopback, answers to what this host began, the ICMP that IP
# needs, ping, DHCPv6 replies and the ports of --keep. Forwarding is left alone, and
# output is free. Running it again replaces its own rules by those of the new options.
# What it has to remember is kept in /run/minimal-firewall, or in $MINIMAL_FIREWALL_RUN.

set -u
umask 077
run=${MINIMAL_FIREWALL_RUN:-/run/minimal-firewall}
kept='' reject='' try='' backend='' force='' dry='' action=''

mistake() { echo "minimal-firewall.sh: $1" >&2; exit 2; }
fail() { echo "minimal-firewall.sh: $1" >&2; exit 1; }

# number TEXT MAX: whether TEXT is a whole number from 1 to MAX
number() {
    case $1 in '' | 0* | *[!0-9]* | ??????*) false ;; *) [ "$1" -le "$2" ] ;; esac
}

# A part is what takes one transaction: nft (for both IP versions), iptables or ip6tables.
placed() {
    case $1 in
    nft) nft list chain inet minimal_firewall input ;;
    *) "$1" -w 10 -S MINIMAL-FIREWALL ;;
    esac >/dev/null 2>&1
}

# present_rules PART: our rules that stand now, without the one that knockknock's daemon adds to them
present_rules() {
    case $1 in
    nft) nft list chain inet minimal_firewall input |
        sed -n '/comment "knockknock"/d; /type filter hook/d; s/^[[:blank:]]\{2\}//p' ;;
    *) "$1" -w 10 -S MINIMAL-FIREWALL | sed -n '/^-A/p' ;;
    esac
}

# ICMP comes before "invalid", since an error about a connection that is not tracked is invalid as well.
# Of TCP only a SYN is answered by --reject: a reset for the first packet that conntrack sees of a connection
# begun before it was at work, like the ssh session this runs in, would cut that connection.
nft_rules() {
    cat <<'END'
iif lo accept
ct state established,related accept
icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } accept
icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
icmpv6 type { echo-request, mld-listener-query, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
ct state invalid drop
ip6 saddr fe80::/10 udp dport 546 accept
END
    for port in $kept; do echo "${port#*/} dport ${port%/*} accept"; done
    [ -z "$reject" ] ||
        printf '%s\n' 'tcp flags & (fin|syn|rst|ack) == syn reject with tcp reset' \
            'meta l4proto != tcp reject with icmpx type port-unreachable'
}

iptables_rules() {
    icmp='icmp --icmp-type' types='destination-unreachable time-exceeded parameter-problem echo-request'
    if [ "$1" = ip6tables ]; then
        # 130 is the multicast listener query, for which iptables has no name.
        icmp='icmpv6 --icmpv6-type'
        types="$types packet-too-big 130 router-advertisement neighbour-solicitation neighbour-advertisement"
    fi
    {
        echo '-i lo -j ACCEPT'
        echo '-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT'
        for type in $types; do echo "-p $icmp $type -j ACCEPT"; done
        echo '-m conntrack --ctstate INVALID -j DROP'
        [ "$1" = iptables ] || echo '-s fe80::/10 -p udp --dport 546 -j ACCEPT'
        for port in $kept; do echo "-p ${port#*/} --dport ${port%/*} -j ACCEPT"; done
        [ -z "$reject" ] || printf '%s\n' '-p tcp --syn -j REJECT --reject-with tcp-reset' '! -p tcp -j REJECT'
    } | sed 's/^/-A MINIMAL-FIREWALL /'
}

# transaction PART RULES: what makes RULES our only ones; no RULES at all takes everything of ours away
transaction() {
    case $1:$2 in
    nft:) echo 'delete table inet minimal_firewall' ;;
    nft:*)
        echo 'add table inet minimal_firewall'
        echo 'add chain inet minimal_firewall input { type filter hook input priority filter; policy drop; }'
        # All rules but the one of knockknock's daemon go, each by its handle, so that its rule is at no
        # moment out of force, keeps its handle and stands at the head.
        nft -a list chain inet minimal_firewall input 2>/dev/null | sed -n '/{ # handle/d; /comment "knockknock"/d
            s/.* # handle \([0-9]*\)$/delete rule inet minimal_firewall input handle \1/p'
        echo "$2" | sed 's/^/add rule inet minimal_firewall input /'
        ;;
    *:)
        policy=$(cat "$run/$1.policy" 2>/dev/null)
        printf '%s\n' '*filter' ":INPUT ${policy:-ACCEPT} [0:0]"
        if "$1" -w 10 -C INPUT -j MINIMAL-FIREWALL 2>/dev/null; then echo '-D INPUT -j MINIMAL-FIREWALL'; fi
        printf '%s\n' '-F MINIMAL-FIREWALL' '-X MINIMAL-FIREWALL' COMMIT
        ;;
    *)
        printf '%s\n' '*filter' ':INPUT DROP [0:0]' ':MINIMAL-FIREWALL - [0:0]' "$2"
        # At the end, so that the chains others put first in INPUT, like knockknock's, stay before ours.
        "$1" -w 10 -C INPUT -j MINIMAL-FIREWALL 2>/dev/null || echo '-A INPUT -j MINIMAL-FIREWALL'
        echo COMMIT
        ;;
    esac
}

set_rules() {
    if ! placed "$1"; then
        [ "$2" ] || return 0
        [ "$1" = nft ] || [ "$dry" ] || "$1" -w 10 -S INPUT | sed -n 's/^-P INPUT //p' >"$run/$1.policy" || return
    fi
    text=$(transaction "$1" "$2")
    case $1 in nft) set -- nft -f - ;; *) set -- "$1-restore" --noflush --wait=10 ;; esac
    if [ "$dry" ]; then printf '%s\n' "# $*" "$text"; else printf '%s\n' "$text" | "$@"; fi
}

# put_back PART...: ends a --try, and makes each part what it was before
put_back() {
    status=0
    for part; do set_rules "$part" "$(cat "$run/old.$part")" || status=1; done
    [ $status = 1 ] || rm -f "$run/try"
    return $status
}

lock() {
    { mkdir -p "$run" && chmod 700 "$run" && touch "$run/lock"; } ||
        fail "cannot write in $run: name a directory that can be written in MINIMAL_FIREWALL_RUN."
    exec 9>"$run/lock"
    flock -w 60 9 || fail 'another run of this script is still at work: wait for its end and try again.'
}

confirm() {
    [ -e "$run/try" ] ||
        fail 'nothing waits for --confirm: no --try was run, or it is confirmed, or the old rules are back already.'
    rm -f "$run/try" && echo 'Confirmed: the new rules stay.'
}

# The port of the ssh session this runs in; sudo takes the variable away, so its parents are asked too.
ssh_port() {
    session=${SSH_CONNECTION:-} pid=$PPID
    while [ -z "$session" ] && [ "${pid:-0}" -gt 1 ]; do
        session=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^SSH_CONNECTION=//p')
        pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status")
    done 2>/dev/null
    echo "${session##* }"
}

# Which other firewall filters input, and the way out; nothing if there is none
other_firewall() {
    if LANGUAGE=C LC_ALL=C ufw status 2>/dev/null | grep -q '^Status: active'; then
        echo "ufw already filters input: turn it off with 'ufw disable' first" && return
    elif nft list table inet firewalld >/dev/null 2>&1; then
        echo "firewalld already filters input: turn it off with 'systemctl disable --now firewalld' first" && return
    fi
    commands='iptables ip6tables'
    # Only where the legacy tables are in use, since asking for them would load them.
    ! grep -qs filter /proc/net/ip_tables_names || commands="$commands iptables-legacy ip6tables-legacy"
    for command in $commands; do
        if "$command" -w 10 -S INPUT 2>/dev/null | grep -Eq -e '^-P INPUT DROP|-j (DROP|REJECT)'; then
            echo "the INPUT chain of $command already refuses input: clear it ('$command -S INPUT' shows it) first"
            return
        fi
    done
    nft list chains 2>/dev/null | awk '
        $1 == "table" { family = $2; table = $2 " " $3 }
        $1 == "chain" { chain = $2 }
        /hook input/ && /policy drop/ && family ~ /^(ip|ip6|inet)$/ {
            print "the nftables chain " table " " chain " already refuses input:" \
                " take it away (\047nft list table " table "\047 shows it) first"
            exit
        }'
}

# What --try leaves behind: --put-back SECONDS ID PART...
if [ "${1:-}" = --put-back ]; then
    sleep "$2" && lock && [ "$(cat "$run/try" 2>/dev/null)" = "$3" ] || exit 0
    shift 3
    put_back "$@" || { sleep 1 && put_back "$@"; }
    exit
fi

while [ $# -gt 0 ]; do
    case $1 in --keep | --try) [ $# -gt 1 ] || mistake "$1 needs a value, as in --keep 443 or --try 60." ;; esac
    case $1 in
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --keep)
        case $2 in */udp | */tcp) port=$2 ;; *) port=$2/tcp ;; esac
        number "${port%/*}" 65535 ||
            mistake "--keep '$2' is no port: give 1 to 65535, as in --keep 443 or --keep 53/udp."
        kept="$kept $port" && shift
        ;;
    --try)
        number "$2" 86400 || mistake "--try '$2' is no time: give whole seconds from 1 to 86400, as in --try 60."
        try=$2 && shift
        ;;
    --confirm | --remove)
        [ "${action:-$1}" = "$1" ] || mistake '--confirm and --remove exclude each other: give one of them.'
        action=$1
        ;;
    --nftables | --iptables)
        [ "${backend:-$1}" = "$1" ] || mistake '--nftables and --iptables exclude each other: give one, or none.'
        backend=$1
        ;;
    --reject) reject=1 ;;
    --force) force=1 ;;
    --dry-run) dry=1 ;;
    *) mistake "'$1' is not an option: --help shows those there are." ;;
    esac
    shift
done
case $action:$reject$kept$try:$backend$force$dry in
--confirm::) ;;
--confirm:*) mistake '--confirm stands alone: leave the other options out.' ;;
--remove::*) ;;
--remove:*) mistake '--remove goes without --reject, --keep and --try: leave them out.' ;;
esac
[ "$(id -u)" = 0 ] || fail 'this needs root: run it again with sudo.'
[ -z "$try" ] || [ -r "$0" ] || fail '--try has to start this script again: save it in a file and run that.'
[ "$dry" ] || lock
if [ "$action" = --confirm ]; then confirm; exit; fi

iptables='iptables ip6tables'
[ -e /proc/net/if_inet6 ] || iptables=iptables
if [ -z "$backend" ]; then
    backend=--nftables
    # Where it stands with iptables already, it goes on with that.
    if placed iptables || placed ip6tables || ! nft list tables >/dev/null 2>&1; then backend=--iptables; fi
fi
case $backend in --nftables) parts=nft others=$iptables ;; *) parts=$iptables others=nft ;; esac

if [ "$action" != --remove ]; then
    for part in $parts; do
        "$part" --version >/dev/null 2>&1 ||
            fail "$part does not work here: install it, or choose the other of --nftables and --iptables."
    done
    for part in $others; do
        ! placed "$part" || fail "this firewall stands already, but not with $backend: run it with --remove first."
    done
    if [ -z "$force" ] && ! placed "${parts%% *}"; then
        other=$(other_firewall)
        [ -z "$other" ] || fail "$other, or add --force to have both."
    fi
    port=$(ssh_port) advice='; --try 60 would put the old rules back if that fails'
    [ -z "$try" ] || advice=''
    case " $kept " in *" $port/tcp "*) port='' ;; esac
    [ -z "$port" ] || echo "Warning: without --keep $port, new ssh logins will need a knock$advice." >&2
fi

if [ -z "$dry" ]; then
    # A --try that still waits keeps its old rules; another one only starts its time again.
    for part in $parts; do
        [ -e "$run/try" ] || { ! placed "$part" || present_rules "$part"; } >"$run/old.$part" ||
            fail "cannot write in $run, so nothing was changed."
    done
    trap '' HUP
    if [ "$try" ]; then
        id=$$.$(date +%s) && echo "$id" >"$run/try"
        # Begun before the rules are set and in a session of its own, so that neither the end of this script
        # nor that of its login leaves nobody to put the old rules back.
        # shellcheck disable=SC2086 # the parts are words
        setsid sh "$0" --put-back "$try" "$id" $parts </dev/null >"$run/log" 2>&1 9>&- &
    fi
    # From here on an interruption could leave one IP version changed and the other not.
    trap '' INT TERM
fi
for part in $parts; do
    case $action:$part in
    --remove:*) rules='' ;;
    *:nft) rules=$(nft_rules) ;;
    *) rules=$(iptables_rules "$part") ;;
    esac
    set_rules "$part" "$rules" && continue
    # shellcheck disable=SC2086
    [ "$dry" ] || put_back $parts
    fail 'the rules were refused (the lines above say why), so the old ones stand.'
done
[ -z "$dry" ] || exit 0
trap - HUP INT TERM
[ "$try" ] || rm -f "$run/try"
if [ "$action" = --remove ]; then
    rm -f "$run"/old.* "$run"/*.policy "$run/log"
    echo 'Nothing of this firewall is left.'
    exit
fi

# A connection that conntrack has not seen from its start counts as established once this side sends
# something: for the ssh session this runs in, these lines are that.
echo "The firewall stands, with ${backend#--}. To have it after a boot too, type, with knockknock's daemon stopped:"
if [ "$backend" = --nftables ]; then
    echo '    mkdir -p /etc/nftables.d && nft list table inet minimal_firewall >/etc/nftables.d/minimal-firewall.nft'
    echo '(nftables.service has to be enabled, and /etc/nftables.conf to say: include "/etc/nftables.d/*.nft")'
else
    echo '    netfilter-persistent save    (of the package iptables-persistent)'
fi
[ "$try" ] || exit 0
exec 9>&-
echo "The old rules come back in $try seconds, unless $0 --confirm is run before, best in a new login."
if [ -t 0 ] && [ -t 1 ]; then
    echo 'Enter here confirms as well.'
    # grep, since the end of a terminal that goes away is no line and must confirm nothing.
    timeout --foreground "$try" grep -q '' || fail 'no Enter came: without a --confirm the old rules are back.'
    lock
    confirm
fi
