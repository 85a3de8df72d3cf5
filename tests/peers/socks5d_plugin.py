"""A plugin of pytest: the suite of python-socks has its proxies from socks5d, one process for each.

SOCKS5D is the program. It runs where /etc/hosts has the names of the suite, in a mount namespace of its own. A proxy
that speaks TLS is socks5d behind a relay that ends TLS.
"""

import os
import socket
import subprocess
import tempfile
import threading

import tests.proxy_server

HOSTS = """127.0.0.1 localhost ip4.proxy.example.com ip4.target.example.com
::1 ip6.proxy.example.com ip6.target.example.com
"""


def free_port():
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def pump(source, sink):
    """Passes bytes on until one side ends."""
    try:
        while received := source.recv(65536):
            sink.sendall(received)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class ProxyServer:
    """In place of the class of this name in the suite."""

    def __init__(self, config):
        self.config = config
        self.processes = []
        self.hosts = tempfile.NamedTemporaryFile("w", suffix=".hosts")
        self.hosts.write(HOSTS)
        self.hosts.flush()

    def start(self):
        """Starts a process for each proxy."""
        for proxy in self.config:
            port = free_port() if proxy.ssl_context else proxy.port
            self.serve(proxy, port)
            if proxy.ssl_context:
                threading.Thread(target=self.end_tls, args=(proxy, port), daemon=True).start()

    def serve(self, proxy, port):
        """socks5d, set up for one proxy."""
        command = [os.environ["SOCKS5D"], "-l", proxy.host, "-p", str(port), "-P", "0"]
        if proxy.proxy_type == "http":
            command += ["--http-connect"]
        if proxy.username and proxy.password:
            command += ["-u", f"{proxy.username}:{proxy.password}"]
        else:
            command += ["--trust", "127.0.0.0/8"]
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        inside = ["unshare", "-rm", "sh", "-c", script, self.hosts.name, *command]
        process = subprocess.Popen(inside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)

    def end_tls(self, proxy, port):
        """Relays what comes over TLS."""
        with socket.create_server((proxy.host, proxy.port)) as server:
            while True:
                client, _ = server.accept()
                threading.Thread(target=self.relay, args=(proxy, port, client), daemon=True).start()

    @staticmethod
    def relay(proxy, port, client):
        """One connection."""
        try:
            client = proxy.ssl_context.wrap_socket(client, server_side=True)
        except OSError:
            return client.close()
        inner = socket.create_connection(("127.0.0.1", port), timeout=10)
        inner.settimeout(None)
        threading.Thread(target=pump, args=(client, inner), daemon=True).start()
        return pump(inner, client)

    def shutdown(self):
        """Ends them."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)
        self.hosts.close()


tests.proxy_server.ProxyServer = ProxyServer
