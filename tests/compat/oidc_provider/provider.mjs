// A certified OpenID Connect provider that gives out JWT access tokens (RFC 9068) to one client, for any resource: what
// follows urn:test: is the audience, and what follows that the algorithm. Its keys are new each time it starts.
// Arguments: the folder with certificate.pem and key.pem, and the port. Prints a line when it listens.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { generateKeyPairSync } from "node:crypto";
import { Provider } from "oidc-provider";

const [folder, port] = process.argv.slice(2);
const issuer = `https://127.0.0.1:${port}`;

function key(alg, kind, options) {
  const { privateKey } = generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: "jwk" }), use: "sig", alg, kid: `${alg}-${Date.now()}` };
}

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "shop",
      client_secret: "a secret of the test's",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  jwks: {
    keys: [
      key("ES256", "ec", { namedCurve: "P-256" }),
      key("RS256", "rsa", { modulusLength: 2048 }),
      key("EdDSA", "ed25519", {}),
    ],
  },
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256", "EdDSA"] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: "chat",
        audience: resource.split(":")[2],
        accessTokenFormat: "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: resource.split(":")[3] } },
      }),
    },
  },
});

const tls = { cert: readFileSync(`${folder}/certificate.pem`), key: readFileSync(`${folder}/key.pem`) };
createServer(tls, provider.callback()).listen(Number(port), "127.0.0.1", () => console.log("listening"));
