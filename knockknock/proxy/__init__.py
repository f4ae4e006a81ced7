"""Where the proxy will live: SOCKS5 and HTTP CONNECT on loopback, a knock before each connection."""
