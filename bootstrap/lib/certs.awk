# Writes the certificates of the host that no package brings, one file each, as DIR/incus-stt-host-N.crt.
#   awk -v dir=DIR -f certs.awk stock=1 PACKAGED… stock=0 THE-HOST-S…
# Certificates are compared by content, so names and line widths do not matter.
FNR == 1 { inside = 0 }
/-----BEGIN (TRUSTED )?CERTIFICATE-----/ { inside = 1; body = ""; next }
/-----END (TRUSTED )?CERTIFICATE-----/ {
    inside = 0
    if (!(body in seen) && !stock) {
        file = dir "/incus-stt-host-" (++n) ".crt"
        print "-----BEGIN CERTIFICATE-----" > file
        for (at = 1; at <= length(body); at += 64) print substr(body, at, 64) > file
        print "-----END CERTIFICATE-----" > file
        close(file)
    }
    seen[body] = 1; next
}
inside { gsub(/[ \t\r]/, ""); body = body $0 }
