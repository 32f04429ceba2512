# Stands in for OpenWrt's rules.mk: the variables that a package Makefile uses.
INCLUDE_DIR:=$(TOPDIR)/include
BUILD_DIR:=$(OUT)/build
PKG_INSTALL_DIR:=$(OUT)/cargo
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_CONF:=install -m0600
INSTALL_DATA:=install -m0644
CP:=cp -fpR
