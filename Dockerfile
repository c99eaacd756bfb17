# The static binary alone: nftproxy runs no other program and reads no file of a distribution.
#
#   make image
#
# It programs the network namespace that it runs in, so on a node it wants the host's (hostNetwork:
# true) and, of all privileges, CAP_NET_ADMIN only. A container run by root with every other
# capability dropped has that; so has a container of any other user where the runtime can give
# ambient capabilities (Kubernetes cannot yet, hence the default user here is root). Commands that do
# not touch the kernel (render, version, completion) need no privilege at all: --user 65534.
#
# /usr/local/bin/kube-proxy is a link to the same file, for a DaemonSet whose command that is. `make image`
# lays out what is copied here.
FROM scratch
COPY bin/image/ /
ENTRYPOINT ["/nftproxy"]
CMD ["--help"]
