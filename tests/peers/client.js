// BIND and ASSOCIATE with npm's `socks`. Arguments: port, user, password, port of a server that echoes datagrams.
'use strict';

const assert = require('assert');
const dgram = require('dgram');
const net = require('net');
const { SocksClient } = require('socks');

const [port, userId, password, echo] = process.argv.slice(2);
const proxy = { host: '127.0.0.1', port: Number(port), type: 5, userId, password };

function bind() {
  return new Promise((resolve, reject) => {
    const client = new SocksClient({ proxy, command: 'bind', destination: { host: '0.0.0.0', port: 0 } });
    client.on('error', reject);
    client.on('bound', (info) => {
      const peer = net.connect(info.remoteHost.port, info.remoteHost.host, () => peer.write('from the peer'));
      peer.on('data', (data) => {
        assert.strictEqual(data.toString(), 'from the client');
        peer.end();
        resolve();
      });
    });
    client.on('established', (info) => {
      info.socket.on('data', (data) => {
        assert.strictEqual(data.toString(), 'from the peer');
        info.socket.write('from the client');
      });
      info.socket.resume();
    });
    client.connect();
  });
}

function associate() {
  return new Promise((resolve, reject) => {
    const datagrams = dgram.createSocket('udp4');
    const client = new SocksClient({ proxy, command: 'associate', destination: { host: '0.0.0.0', port: 0 } });
    client.on('error', reject);
    client.on('established', (info) => {
      const frame = SocksClient.createUDPFrame({ remoteHost: { host: '127.0.0.1', port: Number(echo) }, data: Buffer.from('datagram') });
      datagrams.on('message', (message) => {
        const parsed = SocksClient.parseUDPFrame(message);
        assert.strictEqual(parsed.data.toString(), 'datagram');
        assert.strictEqual(parsed.remoteHost.port, Number(echo));
        datagrams.close();
        info.socket.destroy();
        resolve();
      });
      datagrams.send(frame, info.remoteHost.port, info.remoteHost.host);
    });
    client.connect();
  });
}

Promise.all([bind(), associate()]).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
