# Stands in for oe-core's class of this name.
do_install() {
    install -D -m 0755 /dev/null ${D}${bindir}/${BPN}
}
